"""A block that is run again as long as a condition holds.

python -m samples.while_loop
"""

from liteflow.core import *


class DoStuff(StepBody):
    my_value = 0

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        self.your_value = self.my_value + 1
        print("doing stuff...", self.your_value)
        return ExecutionResult.next()


class While(Workflow):
    def build(self, builder: WorkflowBuilder):
        (
            builder.start_with(lambda context: print("Hello world"))
            .while_(lambda data, context: data.value1 < 3)
                .do(lambda do: do.start_with(DoStuff)
                    .input("my_value", lambda data, context: data.value1)
                    .output("value1", lambda step: step.your_value))
            .then(lambda context: print("Goodbye"))
        )  # fmt: skip


def main() -> None:
    with configure_workflow_host() as host:
        host.register_workflow(While)
        host.wait_for_workflow(host.start_workflow("While", data={"value1": 0}), timeout=10)


if __name__ == "__main__":
    main()

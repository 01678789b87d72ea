"""A block that is run only if a condition holds.

python -m samples.if_condition
"""

from liteflow.core import *


class DoStuff(StepBody):
    def run(self, context: StepExecutionContext) -> ExecutionResult:
        print("doing stuff...")
        return ExecutionResult.next()


class If(Workflow):
    def build(self, builder: WorkflowBuilder):
        (
            builder.start_with(lambda context: print("value1 is", context.data.value1))
            .if_(lambda data, context: data.value1 > 3)
                .do(lambda x: x.start_with(DoStuff))
            .then(lambda context: print("Goodbye"))
        )  # fmt: skip


def main() -> None:
    with configure_workflow_host() as host:
        host.register_workflow(If)
        for value in (2, 4):
            host.wait_for_workflow(host.start_workflow("If", data={"value1": value}), timeout=10)


if __name__ == "__main__":
    main()

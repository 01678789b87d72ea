"""A block for each item of a collection.

python -m samples.for_each
"""

from liteflow.core import *


class DoStuff(StepBody):
    def run(self, context: StepExecutionContext) -> ExecutionResult:
        print(f"doing stuff...{context.execution_pointer.context_item}")
        return ExecutionResult.next()


class Each(Workflow):
    def build(self, builder: WorkflowBuilder):
        (
            builder.start_with(lambda context: print("Hello world"))
            .for_each(lambda data, context: ["abc", "def", "xyz"])
                .do(lambda x: x.start_with(DoStuff))
            .then(lambda context: print("Goodbye"))
        )  # fmt: skip


def main() -> None:
    with configure_workflow_host() as host:
        host.register_workflow(Each)
        host.wait_for_workflow(host.start_workflow("Each"), timeout=10)


if __name__ == "__main__":
    main()

"""Two steps, one after the other.

python -m samples.hello
"""

from liteflow.core import *


class Hello(StepBody):
    def run(self, context: StepExecutionContext) -> ExecutionResult:
        print("Hello world")


class Goodbye(StepBody):
    def run(self, context: StepExecutionContext) -> ExecutionResult:
        print("Goodbye")
        return ExecutionResult.next()


class MyWorkflow(Workflow):
    def id(self):
        return "MyWorkflow"

    def version(self):
        return 1

    def build(self, builder: WorkflowBuilder):
        builder.start_with(Hello).then(Goodbye)


def main() -> None:
    with configure_workflow_host() as host:
        host.register_workflow(MyWorkflow())
        wid = host.start_workflow("MyWorkflow", 1, None)
        host.wait_for_workflow(wid, timeout=10)


if __name__ == "__main__":
    main()

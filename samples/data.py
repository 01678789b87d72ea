"""Inputs and outputs between steps and the workflow's data.

python -m samples.data
"""

from liteflow.core import *


class AddNumbers(StepBody):
    def __init__(self):
        self.input1 = 0
        self.input2 = 0
        self.output = 0

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        self.output = self.input1 + self.input2
        return ExecutionResult.next()


class MyData:
    def __init__(self):
        self.value1 = 0
        self.value2 = 0
        self.value3 = 0


class Sum(Workflow):
    data_type = MyData

    def build(self, builder: WorkflowBuilder):
        (
            builder.start_with(lambda context: print("adding"))
            .then(AddNumbers)
                .input("input1", lambda data, context: data.value1)
                .input("input2", lambda data, context: data.value2)
                .output("value3", lambda step: step.output)
            .then(lambda context: print("the sum is", context.data.value3))
        )  # fmt: skip


def main() -> None:
    data = MyData()
    data.value1, data.value2 = 2, 3
    with configure_workflow_host() as host:
        host.register_workflow(Sum)
        wid = host.start_workflow("Sum", data=data)
        print("value3 =", host.wait_for_workflow(wid, timeout=10).data.value3)


if __name__ == "__main__":
    main()

"""A workflow that waits for an event from outside.

python -m samples.events
"""

import time

from liteflow.core import *


class Waits(Workflow):
    def build(self, builder: WorkflowBuilder):
        (
            builder.start_with(lambda context: print("waiting for event1"))
            .wait_for("event1", lambda data, context: "key1")
                .output("captured_value", lambda step: step.event_data)
            .then(lambda context: print("got", context.data.captured_value))
        )  # fmt: skip


def main() -> None:
    with configure_workflow_host() as host:
        host.register_workflow(Waits)
        wid = host.start_workflow("Waits")
        # An event counts from the moment that the wait began; see docs/events-and-activities.md for others.
        while not any(p.event_name for p in host.get_workflow(wid).execution_pointers):
            time.sleep(0.01)
        host.publish_event("event1", "key1", "hello")
        host.wait_for_workflow(wid, timeout=10)


if __name__ == "__main__":
    main()

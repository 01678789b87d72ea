"""What is broadcast: for those who want to know sooner than they would by looking."""

CANCEL_TOPIC = "cancel"
"""Broadcast with the token of a claim whose body is not wanted any more."""

DUE_TOPIC = "due"
"""Broadcast with a time (seconds since the epoch) earlier than the scheduler may expect."""

ACTIVITY_TOPIC = "activity."
"""Broadcast, followed by an activity's name, when one is offered."""

PARKED_TOPIC = "parked"
"""Broadcast with an `InstanceNotice` when a process has parked what others may be able to run."""

REQUEST_TOPIC = "request"
"""Broadcast with an `InstanceNotice` when a control request is stored: its message may have to wait."""

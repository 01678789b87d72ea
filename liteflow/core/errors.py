"""The error tree.

LiteFlowError
├── DefinitionError            a workflow is built wrongly; names workflow and step
├── DefinitionNotFoundError    no such workflow definition is registered or recorded
├── WorkflowNotFoundError      no instance with this id
├── SettingsError              an option is unknown or impossible; names the option
├── DataError                  a value can't be stored or read back; names its path
├── StepTimeoutError           a step ran longer than its timeout
├── ActivityFailedError        whoever did an activity says that it failed
├── ActivityTokenError         a token of an activity is wrong, has expired or was given back
├── ChildWorkflowError         a child workflow did not complete
├── HostStateError             the host is not in the state that the call needs
├── InstanceUnreadableError    a stored instance is of a format that this process doesn't know
└── ProviderError              a backend failed
    └── UnavailableError       ... for now: trying again later makes sense
        ├── StoreUnavailableError
        ├── QueueUnavailableError
        └── LockUnavailableError
"""

from __future__ import annotations


class LiteFlowError(Exception):
    """Base of every error that LiteFlow raises on purpose."""


class DefinitionError(LiteFlowError):
    """A workflow definition is not valid. Seen by whoever registers it; mend the `build` method."""


class DefinitionNotFoundError(LiteFlowError):
    """No definition of this id (and version) is known. Register it, or start a worker that has it."""


class WorkflowNotFoundError(LiteFlowError):
    """No workflow instance has this id. Check the id; purged instances are gone for good."""


class SettingsError(LiteFlowError):
    """An option is unknown or its value impossible. Seen when a host or process is configured."""


class DataError(LiteFlowError):
    """A value can't be stored or read back.

    `path` is where it is (``data.lines[3].price``), `reason` what is wrong with it.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__()
        self.reason = reason
        self.place(path)

    def place(self, path: str) -> None:
        """Say where it is; for whoever knows more of that than the raiser did."""
        self.path = path
        self.args = (f"{path}: {self.reason}",)


class StepTimeoutError(LiteFlowError):
    """A step ran longer than its timeout. It goes through the step's error policy."""


class ActivityFailedError(LiteFlowError):
    """Whoever did an activity says that it failed. Under the step's policy; RETRY offers it anew."""


class ActivityTokenError(LiteFlowError):
    """No activity is leased under this token: it is wrong, was given back, or has expired. Take it again."""


class ChildWorkflowError(LiteFlowError):
    """A child workflow was terminated or could not be started. It goes through the step's error policy."""


class HostStateError(LiteFlowError):
    """The host can't do this now, for instance start twice. The message says what to do."""


class InstanceUnreadableError(LiteFlowError):
    """A stored instance has a format that this process does not know; a newer release wrote it."""

    def __init__(self, instance_id: str, format_version: object) -> None:
        super().__init__(f"workflow {instance_id} is stored in format {format_version}")
        self.instance_id = instance_id
        self.format_version = format_version


class ProviderError(LiteFlowError):
    """A backend refused a call for a reason that trying again does not cure."""


class UnavailableError(ProviderError):
    """A backend can't be reached now. The call may be repeated; processes do so with backoff."""


class StoreUnavailableError(UnavailableError):
    """The persistence provider can't be reached, or did not confirm a write in time."""


class QueueUnavailableError(UnavailableError):
    """The queue provider can't be reached, or did not confirm a message in time."""


class LockUnavailableError(UnavailableError):
    """Too few lock servers answer to decide who holds a lease."""

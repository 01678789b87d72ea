"""LiteFlow: durable workflows. Everything that the fluent examples use comes with ``import *``."""

from liteflow.core.builder import BlockBuilder, ParallelBuilder, StepBuilder, WorkflowBuilder
from liteflow.core.codec import Namespace
from liteflow.core.definition import WorkflowDefinition
from liteflow.core.errors import (
    ActivityFailedError,
    ActivityTokenError,
    ChildWorkflowError,
    DataError,
    DefinitionError,
    DefinitionNotFoundError,
    HostStateError,
    LiteFlowError,
    LockUnavailableError,
    ProviderError,
    QueueUnavailableError,
    SettingsError,
    StepTimeoutError,
    StoreUnavailableError,
    UnavailableError,
    WorkflowNotFoundError,
)
from liteflow.core.hooks import LifecycleEvent
from liteflow.core.host import WorkflowHost, configure_workflow_host
from liteflow.core.memory_lock import LocalLockProvider
from liteflow.core.memory_queue import SingleNodeQueueProvider
from liteflow.core.memory_store import MemoryPersistenceProvider
from liteflow.core.models import ErrorRecord, PointerStatus, WorkflowStatus, WorkflowSummary
from liteflow.core.providers import LockProvider, PersistenceProvider, QueueProvider
from liteflow.core.registry import WorkflowRegistry
from liteflow.core.result import ExecutionResult
from liteflow.core.retry import ErrorPolicy, RetryPolicy, WorkflowErrorHandling
from liteflow.core.settings import Settings
from liteflow.core.steps import Cancellation, StepBody, StepExecutionContext, step
from liteflow.core.views import ExecutionPointer, WorkflowInstance
from liteflow.core.workflow import Workflow

WorkflowStep = WorkflowErrorHandling
"""The original's name for it: ``on_error(WorkflowStep.RETRY)``."""

__all__ = [
    "ActivityFailedError",
    "ActivityTokenError",
    "BlockBuilder",
    "Cancellation",
    "ChildWorkflowError",
    "DataError",
    "DefinitionError",
    "DefinitionNotFoundError",
    "ErrorPolicy",
    "ErrorRecord",
    "ExecutionPointer",
    "ExecutionResult",
    "HostStateError",
    "LifecycleEvent",
    "LiteFlowError",
    "LocalLockProvider",
    "LockProvider",
    "LockUnavailableError",
    "MemoryPersistenceProvider",
    "Namespace",
    "ParallelBuilder",
    "PersistenceProvider",
    "PointerStatus",
    "ProviderError",
    "QueueProvider",
    "QueueUnavailableError",
    "RetryPolicy",
    "Settings",
    "SettingsError",
    "SingleNodeQueueProvider",
    "StepBody",
    "StepBuilder",
    "StepExecutionContext",
    "StepTimeoutError",
    "StoreUnavailableError",
    "UnavailableError",
    "Workflow",
    "WorkflowBuilder",
    "WorkflowDefinition",
    "WorkflowErrorHandling",
    "WorkflowHost",
    "WorkflowInstance",
    "WorkflowNotFoundError",
    "WorkflowRegistry",
    "WorkflowStatus",
    "WorkflowStep",
    "WorkflowSummary",
    "configure_workflow_host",
    "step",
]

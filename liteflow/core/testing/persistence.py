"""What every persistence provider has to do, as tests. A provider's test file is a fixture and a subclass."""

from __future__ import annotations

import pytest

from liteflow.core.providers import PersistenceProvider
from liteflow.core.testing.persistence_activities import ActivityContract
from liteflow.core.testing.persistence_cluster import ProcessContract, SurveyContract
from liteflow.core.testing.persistence_commit import CommitContract
from liteflow.core.testing.persistence_items import ItemsContract
from liteflow.core.testing.persistence_purge import PurgeContract
from liteflow.core.testing.persistence_queries import (
    ClockContract,
    DefinitionContract,
    EventContract,
    ListingContract,
)
from liteflow.core.testing.persistence_wake import (
    ClaimContract,
    CrashContract,
    ParkContract,
    RequestContract,
    WakeContract,
)


class PersistenceContract(
    CommitContract,
    ItemsContract,
    RequestContract,
    WakeContract,
    ClaimContract,
    CrashContract,
    ParkContract,
    EventContract,
    ActivityContract,
    PurgeContract,
    DefinitionContract,
    ListingContract,
    ProcessContract,
    SurveyContract,
    ClockContract,
):
    """All of it. A subclass, named `Test...`, overrides `provider`."""

    @pytest.fixture
    def provider(self) -> PersistenceProvider:
        """An open provider whose store is empty, for one test."""
        raise NotImplementedError("a subclass gives the provider to test")

"""The persistence provider that stores workflows in MongoDB."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import bson
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.raw_bson import RawBSONDocument
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from liteflow.core.errors import DataError, ProviderError
from liteflow.core.models import (
    FORMAT_VERSION,
    DefinitionRecord,
    ErrorRecord,
    Event,
    Instance,
    Parked,
    Pointer,
    Request,
    Wait,
)
from liteflow.core.providers import (
    ClaimRenewal,
    Due,
    ListFilter,
    Page,
    PersistenceProvider,
    RequestOutcome,
    Waiter,
    WakeMove,
)
from liteflow.core.transition import Outcome, Transition
from liteflow.providers.mongo import documents
from liteflow.providers.mongo.clock import ServerClock
from liteflow.providers.mongo.committing import Committer, encoded
from liteflow.providers.mongo.connection import CODEC_OPTIONS, Client, connect, database_of
from liteflow.providers.mongo.error_log import ErrorLog
from liteflow.providers.mongo.errors import DUPLICATE_KEY, mapped, repeated, write_errors
from liteflow.providers.mongo.event_log import EventLog
from liteflow.providers.mongo.indexes import Collections
from liteflow.providers.mongo.listing import list_page
from liteflow.providers.mongo.requests import Inbox
from liteflow.providers.mongo.scheduling import Scheduling

"""How users' values and times are converted where a record becomes a document of MongoDB."""

from __future__ import annotations

from liteflow.core.forms import Conversion
from liteflow.providers.mongo.values import from_bson, time_from_bson, time_to_bson, to_bson

PLAIN = Conversion(to_bson, from_bson)
TIME = Conversion(time_to_bson, time_from_bson)

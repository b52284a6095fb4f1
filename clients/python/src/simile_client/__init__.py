"""The client of Simile, the self-hosted image similarity search."""

from __future__ import annotations

from simile_client.async_client import AsyncSimile
from simile_client.client import Simile
from simile_client.errors import ApiError, SimileError, UnexpectedAnswer, Unreachable
from simile_client.exchange import Retries
from simile_client.images import Image
from simile_client.models import (
    BatchAnswer,
    BatchAnswered,
    BatchFailed,
    Collection,
    Collections,
    EmbedAnswer,
    Facets,
    Filter,
    Item,
    ItemOfCollection,
    Items,
    Neighbor,
    Problem,
    Sample,
    SearchAnswer,
    Status,
)
from simile_client.version import __version__

__all__ = [
    "ApiError",
    "AsyncSimile",
    "BatchAnswer",
    "BatchAnswered",
    "BatchFailed",
    "Collection",
    "Collections",
    "EmbedAnswer",
    "Facets",
    "Filter",
    "Image",
    "Item",
    "ItemOfCollection",
    "Items",
    "Neighbor",
    "Problem",
    "Retries",
    "Sample",
    "SearchAnswer",
    "Simile",
    "SimileError",
    "Status",
    "UnexpectedAnswer",
    "Unreachable",
    "__version__",
]

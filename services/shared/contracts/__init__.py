"""The messages as frozen values; `codec` turns them into bytes and back.

Pure Python on purpose: upload uses these and holds no numpy. A vector is `bytes`, float32
little-endian, everywhere in this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_ITEMS = 32
"""The most items that one `Embeddings` or `Replies` message carries."""

MAX_NEIGHBORS = 101
"""The most neighbours a slip may ask for: 100, and one for an item that finds itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slip:
    """The routing slip of one query, copied unchanged from message to message.

    deadline_unix_ms is absolute, 0 means none. max_distance is angular, 0..2, None means no bound.
    """

    correlation_id: str
    reply_to: str
    final_reply_to: str
    deadline_unix_ms: int = 0
    traceparent: str = ""
    collection: str = ""
    k: int = 10
    max_distance: float | None = None

    def expired(self, now_unix_ms: int) -> bool:
        """Whether nobody waits for this any more."""
        return 0 < self.deadline_unix_ms <= now_unix_ms


Stages = Mapping[str, float]
"""Seconds by stage name: decode, wait, model, search."""


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """One image (encoded, as received) for the embedder."""

    slip: Slip
    image: bytes


@dataclass(frozen=True, slots=True)
class Embedding:
    """One unit-length vector (float32 little-endian bytes) with its slip."""

    slip: Slip
    vector: bytes
    stages: Stages = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Up to `MAX_ITEMS` vectors of one model; every vector has `dimension` values."""

    model_id: str
    dimension: int
    items: tuple[Embedding, ...]


@dataclass(frozen=True, slots=True)
class Neighbor:
    """One item near the query: angular distance 0..2, similarity = cosine -1..1."""

    item_id: str
    label: str
    attributes: Mapping[str, str]
    distance: float
    similarity: float


@dataclass(frozen=True, slots=True)
class Neighbors:
    """The answer to one query, nearest first, all from one index version."""

    collection: str
    index_version: str
    model_id: str
    neighbors: tuple[Neighbor, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """The answer to a query that can't be answered; `code` is one of `shared.errors`."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Reply:
    """One query's outcome, addressed by correlation id."""

    correlation_id: str
    outcome: Neighbors | Failure
    stages: Stages = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Replies:
    """Up to `MAX_ITEMS` outcomes for one waiting replica."""

    items: tuple[Reply, ...]


AnyMessage = EmbedRequest | Embeddings | Replies

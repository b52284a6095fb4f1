"""The messages as frozen values; `codec` turns them into bytes and back.

Pure Python on purpose: upload uses these and holds no numpy. A vector is `bytes`, float32
little-endian, everywhere in this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

MAX_ITEMS = 32
"""The most items that one `Embeddings` or `Replies` message carries."""

MAX_NEIGHBORS = 100
"""The most neighbours that one answer holds."""


MAX_CURSOR: Final = 8192
"""Characters of a cursor, at most."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which items may answer: one of `labels` (any, when empty) and, per attribute, one value."""

    labels: tuple[str, ...] = ()
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Box:
    """A part of an image, in fractions 0..1 of its width and height, upright."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of a collection.

    max_distance and collapse are angular, 0..2; None means no bound, and that nothing is folded.
    cursor is where the page before ended, as the searcher gave it; empty for the first page.
    exclude is the id of an item that must not be in the answer: the one that asks.
    """

    collection: str = ""
    k: int = 10
    max_distance: float | None = None
    collapse: float | None = None
    filter: Filter | None = None
    cursor: str = ""
    exclude: str = ""


MAX_LATE_MS: Final = 120_000
"""A query can't be later: its queue would have dropped it long before. What seems so is a clock
that differs from the caller's side, and would drop every query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slip:
    """The routing slip of one query, copied unchanged from message to message.

    deadline_unix_ms is absolute, 0 means none. box is the part of the image to embed. canary: a
    replica's trial of the whole path, not to be counted among people's queries. newer holds the
    fields of a newer peer, as bytes: who doesn't know them still passes them on.
    """

    correlation_id: str
    reply_to: str
    final_reply_to: str
    deadline_unix_ms: int = 0
    traceparent: str = ""
    question: Question = Question()
    box: Box | None = None
    return_vector: bool = False
    canary: bool = False
    newer: bytes = b""

    def expired(self, now_unix_ms: int) -> bool:
        """Whether nobody waits for this any more; never by a clock that must be wrong."""
        late_ms = now_unix_ms - self.deadline_unix_ms
        return self.deadline_unix_ms > 0 and 0 <= late_ms <= MAX_LATE_MS


Stages = Mapping[str, float]
"""Seconds by stage: embed_queue, decode, batch_wait, model, search_queue, search, rerank."""


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """One image (encoded, as received) for the embedder."""

    slip: Slip
    image: bytes


@dataclass(frozen=True, slots=True)
class Embedding:
    """One unit-length vector (float32 little-endian bytes) with its slip.

    batch_images: how many images the model was given together; 0 where no model was asked.
    """

    slip: Slip
    vector: bytes
    stages: Stages = field(default_factory=dict)
    batch_images: int = 0


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Up to `MAX_ITEMS` vectors of one model; every vector has `dimension` values.

    refused: why items of a received message are left out, an entry each; the others are sound.
    """

    model_id: str
    dimension: int
    items: tuple[Embedding, ...]
    refused: tuple[str, ...] = ()


class Neighbor(NamedTuple):
    """One item near the query: angular distance 0..2, similarity = cosine -1..1.

    duplicates: ids of the items that were folded into this one, nearest to the query first.
    A tuple, since an answer has ten: a frozen dataclass takes four times as long to make.
    """

    item_id: str
    label: str
    attributes: Mapping[str, str]
    distance: float
    similarity: float
    duplicates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Neighbors:
    """The answer to one query, nearest first, all from one index version.

    matching: how many items pass the query's filter, near or far. next_cursor asks for the page
    after this one; empty when there is none.
    """

    collection: str
    index_version: str
    model_id: str
    neighbors: tuple[Neighbor, ...]
    matching: int = 0
    next_cursor: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """The answer to a query that can't be answered; `code` is one of `shared.errors`."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Reply:
    """One query's outcome, addressed by correlation id.

    vector: the query's (float32 little-endian), where its slip asked for it. batch_images: as in
    Embedding.
    """

    correlation_id: str
    outcome: Neighbors | Failure
    stages: Stages = field(default_factory=dict)
    vector: bytes = b""
    batch_images: int = 0


@dataclass(frozen=True, slots=True)
class Replies:
    """Up to `MAX_ITEMS` outcomes for one waiting replica; refused: as in Embeddings."""

    items: tuple[Reply, ...]
    refused: tuple[str, ...] = ()


AnyMessage = EmbedRequest | Embeddings | Replies

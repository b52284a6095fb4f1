"""The messages as frozen values; `codec` turns them into bytes and back.

Pure Python on purpose: upload uses these and holds no numpy. A vector is `bytes`, float32
little-endian, everywhere in this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

MAX_ITEMS = 32
"""An `Embeddings` or `Replies` message carries at most so many items."""

MAX_NEIGHBORS = 100
"""An answer holds at most so many neighbours."""


MAX_CURSOR: Final = 8192
"""A cursor has at most so many characters."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Selects items by label (any, if `labels` is empty) and by attribute values."""

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
    """The search parameters of a query.

    Attributes:
        collection: the collection to search.
        k: how many neighbours to return.
        max_distance: angular, 0..2; None means no bound.
        collapse: items nearer to each other than this angular distance, 0..2, are folded into
            one; None folds nothing.
        filter: selects the items that may be returned; None selects all.
        cursor: the position after the previous page, as a searcher returned it; empty for the
            first page.
        exclude: the id of an item to leave out, such as the item that the query searches by.
    """

    collection: str = ""
    k: int = 10
    max_distance: float | None = None
    collapse: float | None = None
    filter: Filter | None = None
    cursor: str = ""
    exclude: str = ""


MAX_LATE_MS: Final = 120_000
"""No query is later than this, since its queue drops it first. A larger difference comes from a
clock that is wrong, and must not drop every query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slip:
    """The routing slip of one query, copied unchanged from message to message.

    Attributes:
        correlation_id: names the query.
        reply_to: the queue that the next message goes to.
        final_reply_to: the queue that the reply goes to.
        deadline_unix_ms: absolute, in Unix time; 0 means none.
        traceparent: the query's trace, as in W3C Trace Context; empty without one.
        question: the search parameters.
        box: the part of the image to embed; None means all of it.
        return_vector: the reply holds the query's vector, too.
        canary: the query is a replica's test of the whole path and left out of query metrics.
        newer: the fields that only a newer release knows, as bytes; they are passed on.
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
        """Return whether the deadline is over; False where the clock must be wrong."""
        late_ms = now_unix_ms - self.deadline_unix_ms
        return self.deadline_unix_ms > 0 and 0 <= late_ms <= MAX_LATE_MS


Stages = Mapping[str, float]
"""Seconds by stage: embed_queue, decode, batch_wait, model, search_queue, search, rerank."""


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """Asks the embedders for the vector of an image, which is encoded as received."""

    slip: Slip
    image: bytes


@dataclass(frozen=True, slots=True)
class Embedding:
    """A unit-length vector (float32 little-endian bytes) with its slip.

    Attributes:
        slip: the slip of the query.
        vector: the values.
        stages: the seconds of the stages so far.
        batch_images: how many images the model got together; 0 where no model ran.
    """

    slip: Slip
    vector: bytes
    stages: Stages = field(default_factory=dict)
    batch_images: int = 0


@dataclass(frozen=True, slots=True)
class Embeddings:
    """At most `MAX_ITEMS` vectors of one model, `dimension` values each.

    Attributes:
        model_id: the model that made the vectors.
        dimension: the number of values of each vector.
        items: the vectors.
        refused: the reason for each invalid item of a received message that `items` leaves out.
    """

    model_id: str
    dimension: int
    items: tuple[Embedding, ...]
    refused: tuple[str, ...] = ()


class Neighbor(NamedTuple):
    """An item near the query.

    A named tuple, since an answer has ten: a frozen dataclass takes four times as long to create.

    Attributes:
        item_id: the item's id.
        label: the item's label.
        attributes: the item's attributes by name.
        distance: the angular distance to the query, 0..2.
        similarity: the cosine similarity to the query, -1..1.
        duplicates: ids of the items that were folded into this one, nearest to the query first.
        path: the item's file, relative to the collection's folder; empty from a searcher of an
            older release.
    """

    item_id: str
    label: str
    attributes: Mapping[str, str]
    distance: float
    similarity: float
    duplicates: tuple[str, ...] = ()
    path: str = ""


@dataclass(frozen=True, slots=True)
class Neighbors:
    """The answer to one query, from one index version.

    Attributes:
        collection: the collection that was searched.
        index_version: the version of its index.
        model_id: the model of the index.
        neighbors: the nearest items, nearest first.
        matching: how many items pass the query's filter, near or far.
        next_cursor: the cursor of the next page; empty when there is none.
        close_above: the similarity below which the collection has nothing close; None where it is
            unknown.
    """

    collection: str
    index_version: str
    model_id: str
    neighbors: tuple[Neighbor, ...]
    matching: int = 0
    next_cursor: str = ""
    close_above: float | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """The answer to a query that failed; `code` is one of `shared.errors`."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Reply:
    """The outcome of a query.

    Attributes:
        correlation_id: names the query.
        outcome: the answer, or the failure.
        stages: the seconds of the stages.
        vector: the query's vector (float32 little-endian), where its slip asks for it.
        batch_images: as in `Embedding`.
    """

    correlation_id: str
    outcome: Neighbors | Failure
    stages: Stages = field(default_factory=dict)
    vector: bytes = b""
    batch_images: int = 0


@dataclass(frozen=True, slots=True)
class Replies:
    """At most `MAX_ITEMS` outcomes for one waiting replica; `refused` is as in `Embeddings`."""

    items: tuple[Reply, ...]
    refused: tuple[str, ...] = ()


AnyMessage = EmbedRequest | Embeddings | Replies

"""Defines a query by image or by item, and its answer."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from services.shared.contracts import Box, Neighbors, Question
from services.upload.search.embedding_cache import Vector
from services.upload.search.timeline import Timeline


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuery:
    """A query: its id, the question, and the part of the image.

    deadline: when its caller stops waiting, on the monotonic clock. timeline: collects the
    stages of the query.
    """

    query_id: str
    traceparent: str = ""
    question: Question = field(default_factory=Question)
    box: Box | None = None
    deadline: float | None = None
    timeline: Timeline = field(default_factory=Timeline)


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """Limits the queries of a replica.

    Attributes:
        deadline_seconds: how long a query may take.
        max_in_flight: queries of each kind at once, at most.
    """

    deadline_seconds: float
    max_in_flight: int


@dataclass(frozen=True, slots=True)
class Found:
    """The neighbours that answer a query, and its vector if requested."""

    neighbors: Neighbors
    vector: Vector | None = None


def new_query_id() -> str:
    """Return a unique id of a query; not a secret."""
    # Not uuid4: system randomness costs a system call, and a wait for other threads.
    return f"{random.getrandbits(128):032x}"

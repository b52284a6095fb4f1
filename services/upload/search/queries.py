"""Defines a query by image or by item, and its answer."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

from services.shared.contracts import Box, Neighbors, Question, Reply
from services.shared.errors import Internal
from services.shared.messaging.request_reply import Answer
from services.upload.search.embedding_cache import Vector
from services.upload.search.timeline import Timeline

_FLOAT_BYTES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchQuery:
    """A query by image or by item.

    Attributes:
        query_id: the query's id, in logs and in the answer.
        traceparent: the trace that the query is part of; empty without one.
        question: the search parameters.
        box: the part of the image to search by; None for all of it.
        deadline: when its caller stops waiting, on the monotonic clock; None for never.
        timeline: collects the stages of the query.
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


def found_in(answer: Answer) -> Found:
    """Return the neighbours of an answer. Raises Internal if the answer holds none."""
    if not isinstance(answer, Reply) or not isinstance(answer.outcome, Neighbors):
        raise unexpected(answer)
    if not answer.vector:
        return Found(answer.outcome)
    dimension = len(answer.vector) // _FLOAT_BYTES
    return Found(answer.outcome, Vector(answer.outcome.model_id, dimension, answer.vector))


def unexpected(answer: Answer) -> Internal:
    """Return the error for an answer that does not fit its request: a defect."""
    return Internal(f"the answer is a {type(answer).__name__} of an unexpected kind")


def new_query_id() -> str:
    """Return a unique id of a query; not a secret."""
    # Not uuid4: system randomness costs a system call, and a wait for other threads.
    return f"{random.getrandbits(128):032x}"

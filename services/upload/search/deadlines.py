"""Computes the deadlines of queries and batches, on the monotonic clock."""

from __future__ import annotations

import math
import time

from services.upload.search.admission import MIN_IN_FLIGHT


def patience(deadline: float | None) -> float:
    """Return the seconds that a caller still waits; infinity without a deadline."""
    return math.inf if deadline is None else deadline - time.monotonic()


def batch_deadline(
    images: int, deadline: float | None, query_seconds: float, max_seconds: float
) -> float:
    """Return when a batch ends.

    Each group of as many images as are always admitted has the time of one query.

    Args:
        images: the images of the batch.
        deadline: the caller's.
        query_seconds: the time of one query.
        max_seconds: the time of the largest batch.
    """
    groups = math.ceil(images / MIN_IN_FLIGHT)
    seconds = min(groups * query_seconds, max(query_seconds, max_seconds))
    return time.monotonic() + min(seconds, patience(deadline))

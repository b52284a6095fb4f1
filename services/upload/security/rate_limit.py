"""Limits the rate of each caller by a token bucket.

Each replica has its own buckets: the rate over all replicas is that many times as high.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from services.shared.errors import RateLimited

_MAX_CALLERS: Final = 10_000
"""Beyond this number the least recent caller is dropped, and starts again with a full bucket."""


class RateLimit:
    """The buckets of all callers."""

    def __init__(
        self,
        per_second: float,
        burst: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        max_callers: int = _MAX_CALLERS,
    ) -> None:
        """per_second: 0 means no limit. burst: the size of a bucket. Clock in seconds."""
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._max_callers = max_callers
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, caller: str) -> None:
        """Take a token of the caller. Raises RateLimited with the time until the next token."""
        if self._per_second == 0:
            return
        now = self._clock()
        tokens, since = self._buckets.pop(caller, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - since) * self._per_second)
        enough = tokens >= 1
        self._buckets[caller] = (tokens - 1 if enough else tokens, now)
        if len(self._buckets) > self._max_callers:
            self._buckets.popitem(last=False)
        if not enough:
            message = (
                f"more than {self._per_second:g} queries a second, and {self._burst} at once; "
                "send queries more slowly"
            )
            refusal = RateLimited(message)
            refusal.retry_after_seconds = max(1, math.ceil((1 - tokens) / self._per_second))
            raise refusal


@dataclass(frozen=True, slots=True)
class Allowance:
    """Takes tokens from one caller's bucket."""

    limit: RateLimit
    caller: str

    def take(self) -> None:
        """Take a token. Raises RateLimited."""
        self.limit.take(self.caller)

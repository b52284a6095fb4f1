"""Provides a clock that tests move."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Clock:
    """Returns seconds as time.monotonic does, from `now`, which tests set."""

    now: float = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now

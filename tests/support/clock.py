"""A clock that tests move."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Clock:
    """Seconds, as time.monotonic gives them."""

    now: float = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now

"""A verdict that one trial doesn't change."""

from __future__ import annotations


class Hysteresis:
    """Fails after some failures in a row, and is well again after some successes in a row."""

    def __init__(self, *, failures: int, successes: int) -> None:
        """Well at first."""
        self._failures = failures
        self._successes = successes
        self._against = 0
        self.failing = False

    def note(self, *, success: bool) -> None:
        """One trial."""
        if success != self.failing:
            self._against = 0
            return
        self._against += 1
        if self._against >= (self._successes if self.failing else self._failures):
            self.failing, self._against = not self.failing, 0

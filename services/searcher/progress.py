"""How a long build shows itself: a port for the builder, and a bar for people."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as RichBar,
)


class Progress(Protocol):
    """What a build tells while it works."""

    def begin(self, stage: str, total: int | None, unit: str = "images") -> None:
        """A new stage of `total` units (None: nobody knows); the one before is over.

        unit: what is counted, in the plural; "" where a rate would tell nothing.
        """

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        """So many units more are done, or have failed."""


class NoProgress:
    """Tells nobody."""

    def begin(self, stage: str, total: int | None, unit: str = "images") -> None:
        """Say nothing."""

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        """Say nothing."""


class RichProgress:
    """A bar on a terminal's standard error: units done, units a second, time left, failures."""

    def __init__(self) -> None:
        self._bar = RichBar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[failures]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._stage: TaskID | None = None
        self._failed = 0
        self._unit = ""

    def __enter__(self) -> Self:
        if self._bar.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def begin(self, stage: str, total: int | None, unit: str = "images") -> None:
        """Start a new line's bar."""
        self._failed = 0
        self._unit = unit
        self._stage = self._bar.add_task(stage, total=total, rate="", failures="")

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        """Move the bar."""
        if self._stage is None:
            return
        self._failed += count * failed
        self._bar.advance(self._stage, count)
        speed = self._bar.tasks[self._stage].speed
        self._bar.update(
            self._stage,
            rate=f"{speed:.0f} {self._unit}/s" if speed and self._unit else "",
            failures=f"{self._failed} failed" if self._failed else "",
        )

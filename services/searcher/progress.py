"""Reports the progress of a build: a port for the builder, and a progress bar."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as RichBar,
)

from services.shared.volume.build_progress import BuildProgress

_IMAGES: Final = "images"
_EMBEDDING: Final = "embedding"
_ESTIMATE_AFTER: Final = 8
"""The first answers include an embedder's start and are no measure of its pace."""

REPORT_SECONDS: Final = 10.0


class Progress(Protocol):
    """Receives the progress of a build."""

    def begin(self, stage: str, total: int | None, unit: str = "images") -> None:
        """Begin a stage, which ends the previous stage.

        Args:
            stage: the stage's name.
            total: how many units it has; None where that is unknown.
            unit: the unit's name, in the plural; "" where a rate would mean nothing.
        """

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        """Count units as done, or as failed."""


class NoProgress:
    """Ignores the progress."""

    def begin(self, stage: str, total: int | None, unit: str = "images") -> None:
        """Do nothing."""

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        """Do nothing."""


class CountedProgress:
    """Counts a build's progress, and forwards it."""

    def __init__(self, progress: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        self._progress = progress
        self._clock = clock
        self._build = secrets.token_hex(4)
        self._beat = 0
        self._stage = "listing"
        self._counts_images = False
        self._done = self._failed = 0
        self._total: int | None = None
        self._pace_from: tuple[int, float] | None = None

    def begin(self, stage: str, total: int | None, unit: str = _IMAGES) -> None:
        """Begin a stage; a stage of other units leaves the count of images as it is."""
        self._counts_images = unit == _IMAGES and total is not None
        self._pace_from = None
        if self._counts_images:
            self._done, self._total = 0, total
        self._stage = stage
        self._progress.begin(stage, total, unit)

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        """Count units, and forward the count."""
        if self._counts_images:
            self._done += count
            if self._pace_from is None and self._done >= _ESTIMATE_AFTER:
                self._pace_from = (self._done, self._clock())
        if failed:
            self._failed += count
        self._progress.advance(count, failed=failed)

    def shown(self) -> BuildProgress:
        """Return the present progress; each call increments its heartbeat."""
        self._beat += 1
        return BuildProgress(
            stage=self._stage,
            done=self._done,
            total=self._total,
            failed=self._failed,
            eta_seconds=self._eta_seconds(),
            build=self._build,
            beat=self._beat,
            written_unix_ms=time.time_ns() // 1_000_000,
        )

    def _eta_seconds(self) -> float | None:
        """Estimate the seconds left by the pace of embedding, the only stage that takes long."""
        if self._stage != _EMBEDDING or self._pace_from is None or self._total is None:
            return None
        done, since = self._pace_from
        if self._done == done:
            return None
        pace = (self._done - done) / max(self._clock() - since, 1e-9)
        return round((self._total - self._done) / pace, 1)


class RichProgress:
    """Shows a progress bar on a terminal: units done, units a second, time left, failures.

    The bar is shown from the first stage until `close`, which removes it.
    """

    def __init__(self, console: Console | None = None) -> None:
        """Create a bar; `console`: the terminal, by default standard error."""
        self._bar = RichBar(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[failures]}"),
            console=console or Console(stderr=True),
            transient=True,
            # Output to a file or pipe is not the bar's.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._stage: TaskID | None = None
        self._closed = False
        self._failed = 0
        self._unit = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the bar; later progress is not shown."""
        self._closed = True
        if self._bar.live.is_started:  # else it would print an empty line
            self._bar.stop()

    def begin(self, stage: str, total: int | None, unit: str = "images") -> None:
        """Show this stage instead of the previous one."""
        if self._closed:
            return
        if self._bar.console.is_terminal:
            self._bar.start()
        if self._stage is not None:
            self._bar.remove_task(self._stage)
        self._failed = 0
        self._unit = unit
        self._stage = self._bar.add_task(stage, total=total, count="", rate="", failures="")

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        """Move the bar."""
        if self._stage is None or self._closed:
            return
        self._failed += count * failed
        self._bar.advance(self._stage, count)
        task = self._bar.tasks[-1]
        speed, total = task.speed, task.total
        self._bar.update(
            self._stage,
            count="" if total is None else f"{task.completed:,.0f} of {total:,.0f}",
            rate=f"{speed:,.0f} {self._unit}/s" if speed and self._unit else "",
            failures=f"{self._failed:,} failed" if self._failed else "",
        )


class ReportedProgress:
    """Reports a long build at intervals, where no terminal shows a bar."""

    def __init__(
        self,
        say: Callable[[BuildProgress], None],
        clock: Callable[[], float] = time.monotonic,
        *,
        every_seconds: float = REPORT_SECONDS,
    ) -> None:
        """Create a report; `say` gets the progress at most once in `every_seconds`."""
        self._every_seconds = every_seconds
        self._counted = CountedProgress(NoProgress(), clock)
        self._say = say
        self._clock = clock
        self._next = clock() + every_seconds

    def begin(self, stage: str, total: int | None, unit: str = "images") -> None:
        """Begin to count a stage."""
        self._counted.begin(stage, total, unit)
        self._report()

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        """Count units."""
        self._counted.advance(count, failed=failed)
        self._report()

    def _report(self) -> None:
        now = self._clock()
        if now >= self._next:
            self._next = now + self._every_seconds
            self._say(self._counted.shown())

"""Shows a build's progress on the volume, to the processes that did not start it."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from services.searcher.progress import Progress
from services.shared.build_progress import PROGRESS, BuildProgress

_EVERY_SECONDS: Final = 1.0
_LAST_WRITE_SECONDS: Final = 5.0
_IMAGES: Final = "images"
_EMBEDDING: Final = "embedding"
_ESTIMATED_AFTER: Final = 8
"""The first answers come with an embedder's start, which says nothing of its pace."""


class CountedProgress:
    """Counts a build's progress, and passes it on."""

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
        """Begin a stage; one that counts other things leaves the images as they were."""
        self._counts_images = unit == _IMAGES and total is not None
        self._pace_from = None
        if self._counts_images:
            self._done, self._total = 0, total
        self._stage = stage
        self._progress.begin(stage, total, unit)

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        """Count on."""
        if self._counts_images:
            self._done += count
            if self._pace_from is None and self._done >= _ESTIMATED_AFTER:
                self._pace_from = (self._done, self._clock())
        if failed:
            self._failed += count
        self._progress.advance(count, failed=failed)

    def shown(self) -> BuildProgress:
        """How far the build is now; each call is another beat."""
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
        """Estimate by this stage's pace: only embedding takes long enough to ask."""
        if self._stage != _EMBEDDING or self._pace_from is None or self._total is None:
            return None
        done, since = self._pace_from
        if self._done == done:
            return None
        pace = (self._done - done) / max(self._clock() - since, 1e-9)
        return round((self._total - self._done) / pace, 1)


@contextlib.contextmanager
def shown_on_volume(building: Path, progress: Progress) -> Iterator[CountedProgress]:
    """Write the progress into `building` each second while inside; remove it in the end.

    From a thread, so that the file stays fresh while the event loop has no time. The collection's
    build lock must be held: there is one writer.
    """
    counted, over = CountedProgress(progress), threading.Event()

    def write() -> None:
        while True:
            # A disk that is full or away fails the build itself, with words of its own.
            with contextlib.suppress(OSError):
                counted.shown().write(building)
            if over.wait(_EVERY_SECONDS):
                return

    writing = threading.Thread(target=write, name="build progress", daemon=True)
    writing.start()
    try:
        yield counted
    finally:
        over.set()
        writing.join(_LAST_WRITE_SECONDS)
        with contextlib.suppress(OSError):
            (building / PROGRESS).unlink(missing_ok=True)

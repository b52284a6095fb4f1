"""Writes a build's progress to the volume, for other processes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.searcher.progress import CountedProgress, Progress
from services.shared.volume.build_progress import PROGRESS

_EVERY_SECONDS: Final = 1.0
_LAST_WRITE_SECONDS: Final = 5.0


@contextlib.contextmanager
def shown_on_volume(
    building: Path, progress: Progress, *, every_seconds: float = _EVERY_SECONDS
) -> Iterator[CountedProgress]:
    """Write the progress into `building` at intervals inside the context; remove it at the end.

    Writes from a thread, so that the file stays fresh while the event loop is busy. The
    collection's build lock must be held: there must be a single writer.
    """
    counted, over = CountedProgress(progress), threading.Event()

    def write() -> None:
        while True:
            # A full or absent disk fails the build itself, with its own error.
            with contextlib.suppress(OSError):
                counted.shown().write(building)
            if over.wait(every_seconds):
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

"""Shows a build's progress on the volume, to the processes that did not start it."""

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

"""Reads every file of a collection's folder into the journal: its hash, and its size in pixels."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final

from services.searcher.build.journal import FileFacts, Journal
from services.searcher.build.source.build_limits import BuildLimits
from services.searcher.build.source.fingerprint import fingerprint
from services.searcher.build.source.folder import FolderImages
from services.searcher.progress import Progress
from services.shared import cores
from services.shared.errors import BuildFailed, SimileError, UnknownItem

_READERS: Final = min(4, cores.available())
_FILES_AT_ONCE: Final = 256


def list_images(images: FolderImages, journal: Journal) -> int:
    """List the images in the journal; how many there are. Raises BuildFailed for none."""
    total = journal.list_images(images)
    if not total:
        message = f"{images.folder} holds no files: give a folder of images"
        raise BuildFailed(message)
    return total


def read_all(
    images: FolderImages, journal: Journal, limits: BuildLimits, progress: Progress, total: int
) -> None:
    """Read every listed file that has changed; leave out what isn't an image. Use a thread."""
    progress.begin("reading", total)
    with ThreadPoolExecutor(_READERS, "read") as readers:
        unread = journal.unread()
        while some := list(islice(unread, _FILES_AT_ONCE)):
            reading = [
                (path, readers.submit(fingerprint, images, path, known, limits))
                for path, known in some
            ]
            for path, facts in reading:
                _note(path, facts, journal, progress)
    journal.commit()


def _note(path: str, facts: Future[FileFacts], journal: Journal, progress: Progress) -> None:
    try:
        journal.put_file(path, facts.result())
    except (SimileError, OSError) as error:
        journal.fail_file(path, code_of(error), str(error))
        progress.advance(failed=True)
    else:
        progress.advance()


def code_of(error: SimileError | OSError) -> str:
    """Return the code that a file is left out with."""
    return error.code if isinstance(error, SimileError) else UnknownItem.code

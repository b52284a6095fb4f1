"""Fingerprints the files of a build before they are embedded: hash of the bytes, size in pixels."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from pathlib import Path
from typing import Final

from services.searcher.build.journal import Content, FileFacts
from services.searcher.build.source.build_limits import BuildLimits, named, probe
from services.searcher.build.source.folder import FolderImages
from services.shared.errors import ImageTooLarge, UnknownItem

_SETTLED_NS: Final = 2 * 10**9
_NEVER: Final = -(2**62)
"""A modification time that no file has, so that the next build reads the file."""

_one_large = threading.Lock()


def fingerprint(
    images: FolderImages, path: str, known: FileFacts | None, limits: BuildLimits
) -> FileFacts:
    """Return the file's facts; the known ones if the file is unchanged.

    Raises UnknownItem for a file that can't be had, or what `probe` raises.
    """
    file = images.locate(path)
    if file is None:
        message = "the file is missing, or leads out of the folder"
        raise UnknownItem(message)
    stat = file.stat()
    if known is not None and (known.size, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
        return known
    if stat.st_size > limits.read.max_bytes:
        message = f"{stat.st_size} bytes; {limits.read.max_bytes} are accepted"
        raise named(ImageTooLarge(message))
    # Threads read many files at once, but of the large ones one at a time.
    with _one_large if stat.st_size > limits.sent.max_bytes else contextlib.nullcontext():
        image = file.read_bytes()
        seen, sha256 = probe(image, limits.read), _sha256(image)
    # A file that changed a moment ago may change again within one tick of its file system's clock.
    settled = time.time_ns() - stat.st_mtime_ns > _SETTLED_NS
    mtime_ns = stat.st_mtime_ns if settled else _NEVER
    return FileFacts(stat.st_size, mtime_ns, sha256, seen.width, seen.height)


def read_image(folder: Path, content: Content) -> bytes:
    """Return the content's bytes. Raises UnknownItem if they changed since they were hashed."""
    image = (folder / content.path).read_bytes()
    if _sha256(image) != content.sha256:
        message = f"{content.path} changed while the index was built; run the build again"
        raise UnknownItem(message)
    return image


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

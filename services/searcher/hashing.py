"""What a build knows of a file before it is embedded: the hash of its bytes, the size in pixels."""

from __future__ import annotations

import hashlib
from pathlib import Path

from services.searcher.journal import Content, FileFacts
from services.searcher.source import locate
from services.shared import imaging
from services.shared.errors import ImageTooLarge, UnknownItem


def examine(folder: Path, path: str, known: FileFacts | None, limits: imaging.Limits) -> FileFacts:
    """The file's facts; those known already where the file has not changed since.

    Raises UnknownItem for a file that can't be had, or what `imaging.sniff` raises.
    """
    file = locate(folder, path)
    if file is None:
        message = "the file is missing, or leads out of the folder"
        raise UnknownItem(message)
    stat = file.stat()
    if known is not None and (known.size, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
        return known
    if stat.st_size > limits.max_bytes:
        message = f"{stat.st_size} bytes; {limits.max_bytes} are accepted"
        raise ImageTooLarge(message)
    image = file.read_bytes()
    header = imaging.sniff(image, limits)
    return FileFacts(stat.st_size, stat.st_mtime_ns, _sha256(image), header.width, header.height)


def read_image(folder: Path, content: Content) -> bytes:
    """The content's bytes. Raises UnknownItem when they are not those that were hashed."""
    image = (folder / content.path).read_bytes()
    if _sha256(image) != content.sha256:
        message = f"{content.path} changed while the index was built; run the build again"
        raise UnknownItem(message)
    return image


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

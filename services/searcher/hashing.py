"""What a build knows of a file before it is embedded: the hash of its bytes, the size in pixels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from services.searcher.journal import Journal
from services.searcher.source import SourceImage, locate
from services.shared import imaging
from services.shared.errors import ImageTooLarge, UnknownItem


@dataclass(frozen=True, slots=True)
class HashedImage:
    """A file that has the header of an image; width and height are in pixels, as stored."""

    source: SourceImage
    sha256: str
    width: int
    height: int


def hash_image(
    folder: Path, source: SourceImage, limits: imaging.Limits, journal: Journal
) -> HashedImage:
    """The file's hash and header, from the journal where the file has not changed since.

    Raises UnknownItem for a file that can't be had, or what `imaging.sniff` raises.
    """
    file = locate(folder, source.path)
    if file is None:
        message = "the file is missing, leads out of the folder, or its name is not UTF-8"
        raise UnknownItem(message)
    stat = file.stat()
    known = journal.known_hash(source.path, stat.st_size, stat.st_mtime_ns)
    if known is not None:
        return HashedImage(source, *known)
    if stat.st_size > limits.max_bytes:
        message = f"{stat.st_size} bytes; {limits.max_bytes} are accepted"
        raise ImageTooLarge(message)
    image = file.read_bytes()
    header = imaging.sniff(image, limits)
    hashed = HashedImage(source, _sha256(image), header.width, header.height)
    journal.remember_hash(
        source.path,
        stat.st_size,
        stat.st_mtime_ns,
        sha256=hashed.sha256,
        width=hashed.width,
        height=hashed.height,
    )
    return hashed


def read_image(folder: Path, image: HashedImage) -> bytes:
    """The file's bytes. Raises UnknownItem when they are not those that were hashed."""
    content = (folder / image.source.path).read_bytes()
    if _sha256(content) != image.sha256:
        message = f"{image.source.path} changed while the index was built; run the build again"
        raise UnknownItem(message)
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

"""Serves the image files of a collection in their present state, named by their hash.

A file may have been replaced since the index was built. Its bytes are then served under their own
hash (ETag), never under that of the indexed picture, and only if they are an image.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from cachetools import LRUCache

from services.shared import imaging
from services.shared.errors import ImageGone, SimileError, TooManyPixels
from services.shared.volume.items import Item
from services.shared.volume.manifest import Manifest

_STORED_LIMITS: Final = imaging.Limits(
    max_bytes=2**31, max_pixels=1_000_000_000, max_aspect=1_000_000
)
"""The builder has checked these images; serving them needs no second check."""

SHOWN_BY_BROWSERS: Final = frozenset({"JPEG", "PNG", "GIF", "WEBP", "BMP"})
"""Formats that every browser shows, by Pillow's names."""

_MAX_THUMBNAILS: Final = 2
_LARGE_MEMORY: Final = 128 * 2**20
"""Thumbnails that need more memory are made one at a time."""
_MAX_MEMORY: Final = 768 * 2**20
"""A build accepts images whose thumbnail would need all of upload's memory."""
_MAX_SEEN: Final = 50_000
_SETTLED_SECONDS: Final = 2.0
"""Within the resolution of a file system's clock a file may change without new times."""
_SERVER_FAULT: Final = 500
_WAY_OUT: Final = "put it back, or build the index again"


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An encoded image, its media type, and the SHA-256 of the file that it shows, as hex."""

    content: bytes
    media_type: str
    sha256: str


class _State(NamedTuple):
    """A file's state: while it is unchanged, so are the bytes."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class _Seen:
    """The state of a file when its bytes had that hash."""

    state: _State
    sha256: str


class StoredImages:
    """Reads image files and keeps thumbnails in memory; blocking work is done in threads."""

    def __init__(
        self,
        images_root: Path | None,
        *,
        thumbnail_pixels: int,
        thumbnail_cache_bytes: int,
        max_thumbnail_memory: int = _MAX_MEMORY,
        settled_seconds: float = _SETTLED_SECONDS,
    ) -> None:
        """Create a reader with an empty cache.

        Args:
            images_root: the folder of the collections' images, in place of the manifests'.
            thumbnail_pixels: the longest side of a thumbnail.
            thumbnail_cache_bytes: the size of the cache.
            max_thumbnail_memory: the maximum of bytes for decoding a thumbnail.
            settled_seconds: the age from which a file's times show that its bytes are the same.
        """
        self._images_root = images_root
        self._thumbnail_pixels = thumbnail_pixels
        self._thumbnails = LRUCache[tuple[str, int], bytes](thumbnail_cache_bytes, len)
        self._seen = LRUCache[tuple[str, str], _Seen](_MAX_SEEN)
        self._making = asyncio.Semaphore(_MAX_THUMBNAILS)
        self._max_memory = max_thumbnail_memory
        self._one_large = threading.Lock()
        self._settled_ns = round(1e9 * settled_seconds)

    async def known_sha256(self, manifest: Manifest, item: Item) -> str | None:
        """Return the hash of the item's file if it is known without reading, otherwise None.

        Raises ImageGone.
        """
        seen = self._seen.get(_key(manifest, item))
        if seen is None:
            return None
        state = await asyncio.to_thread(self._state, manifest, item)
        return seen.sha256 if seen.state == state else None

    async def image(self, manifest: Manifest, item: Item) -> EncodedImage:
        """Return an item's image as stored now. Raises ImageGone."""
        content, sha256 = await self._content(manifest, item)
        media_type = await asyncio.to_thread(self._media_type, item, content)
        return EncodedImage(content, media_type, sha256)

    async def original(self, manifest: Manifest, item: Item) -> bytes | None:
        """Return the indexed image; None if it is missing or was replaced."""
        try:
            content, sha256 = await self._content(manifest, item)
        except ImageGone:
            return None
        return content if sha256 == item.sha256 else None

    async def thumbnail(
        self, manifest: Manifest, item: Item, pixels: int | None = None
    ) -> tuple[EncodedImage, bool]:
        """Return a small JPEG of the present file, and whether it was cached.

        pixels: the longest side, at most; None for that of the settings.
        Raises ImageGone, or TooManyPixels if it would need too much memory.
        """
        pixels = pixels or self._thumbnail_pixels
        sha256 = await self.known_sha256(manifest, item)
        known = None if sha256 is None else self._thumbnails.get((sha256, pixels))
        if sha256 is not None and known is not None:
            return EncodedImage(known, "image/jpeg", sha256), True
        # Large files are also read one at a time, to bound the memory.
        async with self._making:
            content, sha256 = await self._content(manifest, item)
            known = self._thumbnails.get((sha256, pixels))
            if known is not None:
                return EncodedImage(known, "image/jpeg", sha256), True
            small = await asyncio.to_thread(self._shrunk, item, content, pixels)
        with contextlib.suppress(ValueError):  # of a thumbnail that is larger than the cache
            self._thumbnails[sha256, pixels] = small
        return EncodedImage(small, "image/jpeg", sha256), False

    async def preview(
        self, image: bytes, known: imaging.Probe, limits: imaging.Limits, pixels: int
    ) -> EncodedImage:
        """Return an image that is not stored in a format that every browser shows.

        Only formats that are decoded in a process of their own are converted: an image of others
        is returned as it is. Raises TooManyPixels, and what `imaging.decode` raises.
        """
        sha256 = hashlib.sha256(image).hexdigest()
        if known.format in SHOWN_BY_BROWSERS:
            return EncodedImage(image, known.media_type, sha256)
        self._require_memory(known, pixels, "a preview of the image")
        async with self._making:
            small = await asyncio.to_thread(imaging.thumbnail, image, limits, pixels, known)
        return EncodedImage(small, "image/jpeg", sha256)

    async def _content(self, manifest: Manifest, item: Item) -> tuple[bytes, str]:
        """Return the file's bytes and their hash, which is cached."""
        content, sha256, state = await asyncio.to_thread(self._read, manifest, item)
        if state is not None:
            self._seen[_key(manifest, item)] = _Seen(state, sha256)
        return content, sha256

    def _state(self, manifest: Manifest, item: Item) -> _State:
        with _gone_without(item):
            return _state_of(os.stat(self._file(manifest, item)))  # noqa: PTH116 (as fstat)

    def _read(self, manifest: Manifest, item: Item) -> tuple[bytes, str, _State | None]:
        with _gone_without(item):
            content, state = _read(self._file(manifest, item), self._settled_ns)
        return content, hashlib.sha256(content).hexdigest(), state

    def _media_type(self, item: Item, content: bytes) -> str:
        with _gone_without(item):
            return imaging.probe(content, _STORED_LIMITS).media_type

    def _shrunk(self, item: Item, content: bytes, pixels: int) -> bytes:
        with _gone_without(item):
            known = imaging.probe(content, _STORED_LIMITS)
        memory = self._require_memory(known, pixels, f"a thumbnail of item {item.item_id}")
        one_by_one = self._one_large if memory > _LARGE_MEMORY else contextlib.nullcontext()
        with one_by_one, _gone_without(item):
            return imaging.thumbnail(content, _STORED_LIMITS, pixels, known)

    def _require_memory(self, known: imaging.Probe, pixels: int, what: str) -> int:
        """Return the memory that decoding takes. Raises TooManyPixels where that is too much."""
        memory = known.memory(pixels)
        if memory > self._max_memory:
            message = f"{what} would take {memory >> 20} MiB to make"
            raise TooManyPixels(message)
        return memory

    def _file(self, manifest: Manifest, item: Item) -> Path:
        """Return the real path of the item's file. Raises ImageGone."""
        root = Path(manifest.images_root)
        if self._images_root is not None:
            root = self._images_root / manifest.collection
        # The real path: neither `..` nor a link may lead out of what the build has read.
        file = Path(os.path.realpath(root / item.path))
        allowed = (str(root), *manifest.linked_folders)
        inside = any(file.is_relative_to(os.path.realpath(one)) for one in allowed)
        if not inside or not file.is_file():
            message = f"the image of item {item.item_id} is not where the index saw it; {_WAY_OUT}"
            raise ImageGone(message)
        return file


def _key(manifest: Manifest, item: Item) -> tuple[str, str]:
    return manifest.collection, item.path


def _read(file: Path, settled_ns: int) -> tuple[bytes, _State | None]:
    """Return the bytes, and the state that guarantees them; None if uncertain."""
    with file.open("rb") as opened:
        before = _state_of(os.fstat(opened.fileno()))
        content = opened.read()
        after = _state_of(os.fstat(opened.fileno()))
    settled = time.time_ns() - max(after.mtime_ns, after.ctime_ns) > settled_ns
    return content, after if settled and before == after else None


def _state_of(stat: os.stat_result) -> _State:
    return _State(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@contextlib.contextmanager
def _gone_without(item: Item) -> Iterator[None]:
    """Raise ImageGone if the file is unreadable, or not an image that can be shown."""
    try:
        yield
    except OSError as error:
        message = f"the image of item {item.item_id} can't be read ({error.strerror}); {_WAY_OUT}"
        raise ImageGone(message) from error
    except SimileError as error:
        if error.status >= _SERVER_FAULT or isinstance(error, ImageGone):
            raise
        message = f"the file of item {item.item_id} is not an image any more ({error}); {_WAY_OUT}"
        raise ImageGone(message) from error

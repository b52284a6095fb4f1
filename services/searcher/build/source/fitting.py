"""Makes the images of a collection fit for the embedders, whose limits are meant for callers.

What is too large is decoded here as the model wants it and sent uncompressed: the same pixels, to
the bit, as the model makes of a photograph. One large image at a time, so memory stays foreseen.
"""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Final

from PIL import Image

from services.searcher.build.bulk_embedder import BulkEmbedder
from services.searcher.build.journal import Content
from services.searcher.build.source.build_limits import BuildLimits, for_jpeg, header_of
from services.searcher.build.source.fingerprint import read_image
from services.shared import imaging
from services.shared.imaging import Header, Limits, shrinking

_USUAL_TARGET: Final = 512
"""Pixels on the short side for a model whose id does not say what it needs."""

_BITMAP_HEAD: Final = 64
_PACKED: Final = 3
"""To how many times the accepted size lossless compression is tried."""


def fits(size: int, header: Header, limits: Limits) -> bool:
    """Return true if the embedders take an image of so many bytes unchanged."""
    return size <= limits.max_bytes and header.width * header.height <= limits.max_pixels


def fitted(image: bytes, limits: BuildLimits, model_id: str) -> bytes:
    """The image, or where it is too large for the embedders one of which a model sees the same.

    A photograph gives the same input to the bit. Other pictures that do not fit without loss are
    averaged down as little as makes them fit.

    Raises:
        SimileError: what `imaging.decode` raises.
    """
    header = header_of(image, limits.read)
    if fits(len(image), header, limits.sent):
        return image
    is_plain = header.format == "JPEG" and not header.progressive
    target = shrinking.target_of(model_id) or _USUAL_TARGET
    read = for_jpeg(limits.read) if is_plain else limits.read
    fitting = _file_of(imaging.decode(image, read, target=target), limits.sent)
    imaging.sniff(fitting, limits.sent)
    return fitting


class Fitter:
    """Reads contents and makes them fit, the large ones one at a time."""

    def __init__(self, folder: Path, limits: BuildLimits) -> None:
        self._folder = folder
        self._limits = limits
        self._one_large = asyncio.Lock()

    async def image(self, content: Content, model_id: str | None, embedder: BulkEmbedder) -> bytes:
        """The content's bytes as the embedders take them; they say their model where it is None.

        Raises OSError, SimileError.
        """
        image = await asyncio.to_thread(self._read, content)
        if image is not None:
            return image
        if model_id is None:
            model_id = (await embedder.embed(small_picture())).model_id
        async with self._one_large:
            image = await asyncio.to_thread(read_image, self._folder, content)
            return await asyncio.to_thread(fitted, image, self._limits, model_id)

    def _read(self, content: Content) -> bytes | None:
        """The content's bytes; None for one that has to be made to fit."""
        sent = self._limits.sent
        if (self._folder / content.path).stat().st_size > sent.max_bytes:
            return None
        image = read_image(self._folder, content)
        return image if fits(len(image), header_of(image, self._limits.read), sent) else None


def small_picture() -> bytes:
    """A picture that every embedder takes: its answer names the model."""
    return _bitmap(Image.linear_gradient("L").convert("RGB"))


def _file_of(picture: Image.Image, limits: Limits) -> bytes:
    """The picture as a file within the limits, uncompressed or packed; smaller only if need be."""
    reduced, factor = picture, 1
    while True:
        size = 3 * reduced.width * reduced.height + 3 * reduced.height + _BITMAP_HEAD
        if reduced.width * reduced.height <= limits.max_pixels:
            if size <= limits.max_bytes:
                return _bitmap(reduced)
            packed = _packed(reduced) if size <= _PACKED * limits.max_bytes else b""
            if packed and len(packed) <= limits.max_bytes:
                return packed
        factor += 1
        reduced = picture.reduce(factor)


def _bitmap(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "BMP")
    return file.getvalue()


def _packed(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()

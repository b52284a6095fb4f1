"""Makes the images of a collection fit for the embedders, whose limits are meant for callers.

Images that are too large are decoded here as the model needs them, and sent uncompressed: exactly
the pixels that the model makes of a photograph. Large images take turns, to bound the memory.
"""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Final

from PIL import Image

from services.searcher.build.bulk_embedder import BulkEmbedder
from services.searcher.build.journal import Content
from services.searcher.build.source.build_limits import BuildLimits, for_jpeg, probe
from services.searcher.build.source.fingerprint import read_image
from services.shared import imaging
from services.shared.imaging import Limits, Probe, shrinking
from services.shared.imaging.probe import check_size

_USUAL_TARGET: Final = 512
"""Pixels on the short side for a model whose id does not say what it needs."""

_BITMAP_HEAD: Final = 64
_PACKED: Final = 3
"""To how many times the accepted size lossless compression is tried."""


def fits(size: int, known: Probe, limits: Limits) -> bool:
    """Return true if the embedders take an image of so many bytes unchanged."""
    return size <= limits.max_bytes and known.width * known.height <= limits.max_pixels


def fitted(image: bytes, limits: BuildLimits, model_id: str, known: Probe | None = None) -> bytes:
    """Return the image, or a smaller one with the same model input if it is too large to send.

    A photograph gives the same input to the bit. Other pictures that do not fit without loss are
    averaged down as little as makes them fit. known: the image's probe, where it was made before.

    Raises:
        SimileError: what `imaging.decode` raises.
    """
    known = known or probe(image, limits.read)
    if fits(len(image), known, limits.sent):
        return image
    is_plain = known.format == "JPEG" and not known.progressive
    target = shrinking.target_of(model_id) or _USUAL_TARGET
    read = for_jpeg(limits.read) if is_plain else limits.read
    return _file_of(imaging.decode(image, read, target=target, known=known), limits.sent)


class Fitter:
    """Reads contents and makes them fit, the large ones one at a time."""

    def __init__(self, folder: Path, limits: BuildLimits) -> None:
        self._folder = folder
        self._limits = limits
        self._one_large = asyncio.Lock()

    async def image(self, content: Content, model_id: str | None, embedder: BulkEmbedder) -> bytes:
        """Return the content's bytes for the embedders, which name their model if it is None.

        Raises OSError, SimileError.
        """
        read = await asyncio.to_thread(self._read, content)
        if isinstance(read, bytes):
            return read
        if model_id is None:
            model_id = (await embedder.embed(small_picture())).model_id
        async with self._one_large:
            image = await asyncio.to_thread(read_image, self._folder, content)
            return await asyncio.to_thread(fitted, image, self._limits, model_id, read)

    def _read(self, content: Content) -> bytes | Probe | None:
        """Return the content's bytes where they fit; else their probe, if they were read for it."""
        sent = self._limits.sent
        if (self._folder / content.path).stat().st_size > sent.max_bytes:
            return None
        image = read_image(self._folder, content)
        known = probe(image, self._limits.read)
        return image if fits(len(image), known, sent) else known


def small_picture() -> bytes:
    """Return a picture that every embedder accepts, to learn the model from its answer."""
    return _bitmap(Image.linear_gradient("L").convert("RGB"))


def _file_of(picture: Image.Image, limits: Limits) -> bytes:
    """Write the picture within the limits, uncompressed or packed; smaller only if need be.

    Raises ExtremeAspect where rounding has made it too long for its width.
    """
    reduced, factor = picture, 1
    while (file := _within(reduced, limits)) is None:
        factor += 1
        reduced = picture.reduce(factor)
    check_size(*reduced.size, limits)
    return file


def _within(picture: Image.Image, limits: Limits) -> bytes | None:
    """Write the picture; None where it has too many pixels, or bytes in both forms."""
    if picture.width * picture.height > limits.max_pixels:
        return None
    size = 3 * picture.width * picture.height + 3 * picture.height + _BITMAP_HEAD
    if size <= limits.max_bytes:
        return _bitmap(picture)
    packed = _packed(picture) if size <= _PACKED * limits.max_bytes else b""
    return packed if packed and len(packed) <= limits.max_bytes else None


def _bitmap(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "BMP")
    return file.getvalue()


def _packed(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()

"""Decodes images: the pixels of queries and of a collection's images are made here alone.

Pillow, no numpy. Hostile bytes end in a named error, never in one of Pillow's own.
"""

from __future__ import annotations

import io
import math
from typing import Final

from PIL import Image, ImageFile

from services.shared.contracts import Box
from services.shared.errors import BoxTooSmall, ExtremeAspect
from services.shared.imaging.image_cost import JPEG_FAMILY
from services.shared.imaging.orientation import (
    Edges,
    orientation_of,
    stored_edges,
    upright,
    upright_size,
)
from services.shared.imaging.probe import Limits, opened_image

PIXELS: Final = "pillow-v1"
"""Names what `decode` makes of an image; a change that gives other pixels needs another name."""

_BOX_PIXELS: Final = 16

_THUMBNAIL_QUALITY: Final = 85


def decode(
    image: bytes, limits: Limits, *, target: int | None = None, box: Box | None = None
) -> Image.Image:
    """The first frame in RGB, upright, over white where it is transparent; only the box, if any.

    target: so many pixels on the short side (of the box) are enough; a JPEG is then decoded at a
    fraction of its size, which costs a fraction of the time. Raises what `sniff` raises, and
    BoxTooSmall.
    """
    with opened_image(image, limits) as opened:
        if box is not None:
            _check_box(opened, box, limits)
        if target is not None and opened.format in JPEG_FAMILY:
            opened.draft(None, _draft_size(opened, target, box))
        opened.load()
        rgb, orientation = _rgb(opened), orientation_of(opened)
        if box is not None:
            # Before the turn, which takes long on a whole photograph.
            edges = _edges(box, upright_size(rgb.size, orientation))
            rgb = rgb.crop(stored_edges(edges, rgb.size, orientation))
        return upright(rgb, orientation)


def thumbnail(image: bytes, limits: Limits, size: int) -> bytes:
    """A small JPEG of the image, its longest side at most `size`. Raises what `sniff` raises."""
    small = decode(image, limits, target=size)
    small.thumbnail((size, size))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=_THUMBNAIL_QUALITY)
    return out.getvalue()


def _check_box(opened: ImageFile.ImageFile, box: Box, limits: Limits) -> None:
    left, top, right, bottom = _edges(box, upright_size(opened.size, orientation_of(opened)))
    short, long = sorted((right - left, bottom - top))
    if short < _BOX_PIXELS:
        message = f"the box holds {right - left} x {bottom - top} pixels of the image; "
        raise BoxTooSmall(message + f"draw it at least {_BOX_PIXELS} pixels wide and high")
    if long > limits.max_aspect * short:
        message = f"the box is more than {limits.max_aspect:g} times as long as wide"
        raise ExtremeAspect(message)


def _draft_size(opened: ImageFile.ImageFile, target: int, box: Box | None) -> tuple[int, int]:
    """The least size to decode at, so that the short side (of the box) has `target` pixels."""
    if box is None:
        return target, target
    left, top, right, bottom = _edges(box, upright_size(opened.size, orientation_of(opened)))
    scale = target / min(right - left, bottom - top)
    return math.ceil(opened.width * scale), math.ceil(opened.height * scale)


def _edges(box: Box, size: tuple[int, int]) -> Edges:
    """Left, top, right and bottom in pixels; never empty, never outside an image of that size."""
    width, height = size
    left = min(max(0, math.floor(box.left * width)), width - 1)
    top = min(max(0, math.floor(box.top * height)), height - 1)
    right = min(max(left + 1, math.ceil((box.left + box.width) * width)), width)
    bottom = min(max(top + 1, math.ceil((box.top + box.height) * height)), height)
    return left, top, right, bottom


def _rgb(loaded: Image.Image) -> Image.Image:
    if loaded.mode.startswith("I;16"):
        # Pillow clips 16 bits to 8: scale first. `point` scales mode I exactly, I;16 not.
        return (
            loaded.convert("I").point(lambda value: value * (1 / 256)).convert("L").convert("RGB")
        )
    if not loaded.has_transparency_data:
        # `convert` copies even where there is nothing to convert.
        return loaded if loaded.mode == "RGB" else loaded.convert("RGB")
    rgba = loaded.convert("RGBA")
    white = Image.new("RGB", loaded.size, "white")
    white.paste(rgba, mask=rgba)
    return white

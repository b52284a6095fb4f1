"""Decodes images: the pixels of queries and of a collection's images are made here alone.

Pillow, no numpy. Hostile bytes end in a named error, never in one of Pillow's own.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Final, cast

from PIL import ExifTags, Image, ImageChops, ImageFile, ImageStat

from services.shared.contracts import Box
from services.shared.errors import BoxTooSmall, ExtremeAspect, UndecodableImage
from services.shared.image_limits import Limits
from services.shared.imaging import colour
from services.shared.imaging.formats import jpeg, jpeg2000, short_jpeg
from services.shared.imaging.image_cost import memory_errors_named
from services.shared.imaging.orientation import (
    Edges,
    orientation_of,
    stored_edges,
    upright,
    upright_size,
)
from services.shared.imaging.probe import Probe, opened_image

PIXELS: Final = "pillow-v2"
"""Names what `decode` makes of an image; a change that gives other pixels needs another name."""

_COMPARABLE: Final = ("pillow-v1",)
"""Names before it that gave nearly all images the same pixels."""

_BOX_PIXELS: Final = 16

_OTHER_SPACES: Final = frozenset({"CMYK", "LAB"})
_GREY_MODES: Final = frozenset({"1", "L", "LA"})

_WHITE: Final = (255, 255, 255)
_DARK: Final = (64, 64, 64)
"""A grey: of the backgrounds tried (black to mid grey, blues) none kept white shapes further apart
without adding a colour."""

_MIN_INK: Final = 24.0
"""A transparent image counts as white where its visible pixels differ less from white than this,
of 255 and on average."""

_WHITE_IS_ZERO: Final = 0
_TWELVE_BITS: Final = (12,)
"""Values of a TIFF's tags."""


def current_name(model_id: str) -> str:
    """The model id as this version writes it, of an id whose vectors are comparable with those.

    Vectors of the version before are searched until the collection is built again; only a few kinds
    of images (white on transparent, odd colour profiles) have other vectors now.
    """
    for name in _COMPARABLE:
        model_id = model_id.replace(f"/{name}-", f"/{PIXELS}-")
    return model_id


@memory_errors_named()
def decode(
    image: bytes,
    limits: Limits,
    *,
    target: int | None = None,
    box: Box | None = None,
    known: Probe | None = None,
) -> Image.Image:
    """The first frame in RGB, upright, its colours as a browser shows them; only the box, if any.

    Transparent pictures lie over white, or over dark grey where they would vanish on white. A JPEG
    may lack its end marker and its last rows.

    target: so many pixels on the short side (of the box) are enough; a JPEG or JPEG 2000 is then
    decoded at a fraction of its size, which costs a fraction of the time. known: the image's probe,
    where it was made before. Raises what `probe` raises, and BoxTooSmall.
    """
    is_short = len(image) <= limits.max_bytes and short_jpeg.ends_early(image)
    decoded = None if is_short else _decoded(image, limits, target, box, known)
    if decoded is None:
        with opened_image(image, limits, known):  # its limits hold before anything is decoded
            completed = short_jpeg.completed(image)
        longer = replace(limits, max_bytes=max(limits.max_bytes, len(completed)))
        decoded = _decoded(completed, longer, target, box, known)
    if decoded is None:
        message = "the JPEG ends early, and can't be completed: send all of it"
        raise UndecodableImage(message)
    return decoded


def _decoded(
    image: bytes, limits: Limits, target: int | None, box: Box | None, known: Probe | None
) -> Image.Image | None:
    """The picture; None for a JPEG whose data ends before its last pixel or its end marker."""
    with opened_image(image, limits, known) as (opened, _):
        if box is not None:
            _check_box(opened, box, limits)
        if target is not None:
            _shrink(opened, image, _draft_size(opened, target, box))
        if not _loads(opened):
            return None
        rgb, orientation = _rgb(opened), orientation_of(opened)
        if box is not None:
            # Before the turn, which takes long on a whole photograph.
            edges = _edges(box, upright_size(rgb.size, orientation))
            rgb = rgb.crop(stored_edges(edges, rgb.size, orientation))
        return upright(rgb, orientation)


def _shrink(opened: ImageFile.ImageFile, image: bytes, wanted: tuple[int, int]) -> None:
    """Let it be decoded at a fraction of its size, if its format can."""
    if opened.format in jpeg.FAMILY:
        opened.draft(None, wanted)
    elif opened.format == jpeg2000.FORMAT:
        cast("Any", opened).reduce = jpeg2000.reduction(image, wanted)


def _loads(opened: ImageFile.ImageFile) -> bool:
    """Decode it; False for a JPEG that ends early."""
    try:
        opened.load()
    except OSError as error:
        if opened.format in jpeg.FAMILY and "truncated" in str(error):
            return False
        raise
    return True


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


def _rgb(loaded: ImageFile.ImageFile) -> Image.Image:
    if loaded.mode.startswith("I;16"):
        return colour.as_shown(_eight_bits(loaded).convert("RGB"), loaded.info, grey=True)
    grey = loaded.mode in _GREY_MODES
    if not loaded.has_transparency_data:
        # `convert` copies even where there is nothing to convert.
        rgb = loaded if loaded.mode == "RGB" else loaded.convert("RGB")
        # The profile of another space says nothing of what its conversion gave.
        info = {} if loaded.mode in _OTHER_SPACES else loaded.info
        return colour.as_shown(rgb, info, grey=grey)
    rgba = loaded if loaded.mode == "RGBA" else loaded.convert("RGBA")
    return _flattened(colour.as_shown(rgba, loaded.info, grey=grey))


def _eight_bits(loaded: ImageFile.ImageFile) -> Image.Image:
    """Grey of 12 or 16 bits in 8, black as 0."""
    tags = getattr(loaded, "tag_v2", {})
    scale = 16 if tags.get(ExifTags.Base.BitsPerSample) == _TWELVE_BITS else 256
    # Pillow clips 16 bits to 8: scale first. `point` scales mode I exactly, I;16 not.
    grey = loaded.convert("I").point(lambda value: value * (1 / scale)).convert("L")
    # Pillow heeds it in all TIFFs but these.
    is_negative = tags.get(ExifTags.Base.PhotometricInterpretation) == _WHITE_IS_ZERO
    return ImageChops.invert(grey) if is_negative else grey


def _flattened(rgba: Image.Image) -> Image.Image:
    """Lay an RGBA image over white, or over dark grey where it would vanish on white.

    Only an image whose visible pixels, weighted by their alpha, are nearly all white gets the
    dark background: a white logo is then a shape and no blank page.
    """
    flat = _over(rgba, _WHITE)
    return _over(rgba, _DARK) if _vanishes(rgba, flat) else flat


def _over(rgba: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    flat = Image.new("RGB", rgba.size, background)
    flat.paste(rgba, mask=rgba)
    return flat


def _vanishes(rgba: Image.Image, on_white: Image.Image) -> bool:
    """Return whether the image differs too little from white where it is visible."""
    weights = rgba.getchannel("A").histogram()
    visible = sum(alpha * count for alpha, count in enumerate(weights)) / 255
    opaque = weights[-1] == rgba.width * rgba.height
    if opaque or not visible:
        return False
    # The strongest channel, since yellow and other light colours differ from white by one alone.
    ink = max(255 - mean for mean in ImageStat.Stat(on_white).mean) * rgba.width * rgba.height
    return ink < _MIN_INK * visible

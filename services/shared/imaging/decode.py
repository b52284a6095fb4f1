"""Decodes images: all pixels of queries and of a collection's images come from here.

Uses Pillow without numpy. Hostile bytes end in a named error, never in an error of Pillow.
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
"""The version of `decode` in model ids; a change of its pixels needs another name."""

_COMPARABLE: Final = ("pillow-v1",)
"""Earlier versions that gave the same pixels for nearly all images."""

_BOX_PIXELS: Final = 16

_OTHER_SPACES: Final = frozenset({"CMYK", "LAB"})
_GREY_MODES: Final = frozenset({"1", "L", "LA"})

_WHITE: Final = (255, 255, 255)
_DARK: Final = (64, 64, 64)
"""A dark grey: no other background tried (black to mid grey, blues) kept white shapes further apart
without adding a colour."""

_MIN_INK: Final = 24.0
"""A transparent image counts as white if its visible pixels differ less from white than this,
of 255, on average."""

_WHITE_IS_ZERO: Final = 0
_TWELVE_BITS: Final = (12,)
"""BitsPerSample of a TIFF."""


def current_name(model_id: str) -> str:
    """Return the model id as this version writes it, for an id with comparable vectors.

    Indexes of the earlier version answer until they are built again: only a few kinds
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
    """Return the first frame in RGB, upright, in sRGB; with a box only that part.

    Transparent pictures get a white background, or dark grey if they would vanish on white. A JPEG
    may lack its end marker and its last rows.

    target: sufficient pixels on the short side (of the box); a JPEG or JPEG 2000 is then
    decoded at a fraction of its size, which costs a fraction of the time. known: the image's probe,
    where it was made before. Raises what `probe` raises, and BoxTooSmall.
    """
    is_short = len(image) <= limits.max_bytes and short_jpeg.ends_early(image)
    decoded = None if is_short else _decoded(image, limits, target, box, known)
    if decoded is None:
        with opened_image(image, limits, known):  # checks the limits before anything is decoded
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
    """Return the picture; None for a JPEG whose data ends before its last pixel or end marker."""
    with opened_image(image, limits, known) as (opened, _):
        if box is not None:
            _check_box(opened, box, limits)
        if target is not None:
            _shrink(opened, image, _draft_size(opened, target, box))
        if not _loads(opened):
            return None
        rgb, orientation = _rgb(opened), orientation_of(opened)
        if box is not None:
            # Before the rotation, which takes long on a whole photograph.
            edges = _edges(box, upright_size(rgb.size, orientation))
            rgb = rgb.crop(stored_edges(edges, rgb.size, orientation))
        return upright(rgb, orientation)


def _shrink(opened: ImageFile.ImageFile, image: bytes, wanted: tuple[int, int]) -> None:
    """Set the decoder to a fraction of the size, if the format supports that."""
    if opened.format in jpeg.FAMILY:
        opened.draft(None, wanted)
    elif opened.format == jpeg2000.FORMAT:
        cast("Any", opened).reduce = jpeg2000.reduction(image, wanted)


def _loads(opened: ImageFile.ImageFile) -> bool:
    """Decode the image; return False for a JPEG that ends early."""
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
    """Return the minimum size to decode at, for `target` pixels on the short side (of the box)."""
    if box is None:
        return target, target
    left, top, right, bottom = _edges(box, upright_size(opened.size, orientation_of(opened)))
    scale = target / min(right - left, bottom - top)
    return math.ceil(opened.width * scale), math.ceil(opened.height * scale)


def _edges(box: Box, size: tuple[int, int]) -> Edges:
    """Return left, top, right and bottom in pixels; never empty, always inside the image."""
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
        # `convert` copies even without a change of mode.
        rgb = loaded if loaded.mode == "RGB" else loaded.convert("RGB")
        # The profile of another space does not apply to the converted picture.
        info = {} if loaded.mode in _OTHER_SPACES else loaded.info
        return colour.as_shown(rgb, info, grey=grey)
    rgba = loaded if loaded.mode == "RGBA" else loaded.convert("RGBA")
    return _flattened(colour.as_shown(rgba, loaded.info, grey=grey))


def _eight_bits(loaded: ImageFile.ImageFile) -> Image.Image:
    """Convert grey of 12 or 16 bits to 8, black as 0."""
    tags = getattr(loaded, "tag_v2", {})
    scale = 16 if tags.get(ExifTags.Base.BitsPerSample) == _TWELVE_BITS else 256
    # Pillow clips 16 bits to 8: scale first. `point` scales mode I exactly, I;16 not.
    grey = loaded.convert("I").point(lambda value: value * (1 / scale)).convert("L")
    # Pillow applies it in all TIFFs but these.
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
    # By the channel that differs most, since light yellow differs from white in a single channel.
    ink = max(255 - mean for mean in ImageStat.Stat(on_white).mean) * rgba.width * rgba.height
    return ink < _MIN_INK * visible

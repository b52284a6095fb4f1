"""Lays transparent pictures over a ground that their visible pixels stand out from."""

from __future__ import annotations

from typing import Final

from PIL import Image, ImageStat

_WHITE: Final = (255, 255, 255)
_DARK: Final = (64, 64, 64)
"""A grey: of the grounds tried (black to mid grey, blues) none kept white shapes further apart
without adding a colour."""

_LEAST_INK: Final = 24.0
"""A picture whose visible pixels differ less from white, of 255 and on the average, is white."""


def flattened(rgba: Image.Image) -> Image.Image:
    """Lay an RGBA picture over white, or over dark grey where it would vanish on white.

    Only a picture whose visible pixels, weighted by their alpha, are nearly all white gets the
    dark ground: a white logo is then a shape and no blank page.
    """
    flat = _over(rgba, _WHITE)
    return _over(rgba, _DARK) if _vanishes(rgba, flat) else flat


def _over(rgba: Image.Image, ground: tuple[int, int, int]) -> Image.Image:
    flat = Image.new("RGB", rgba.size, ground)
    flat.paste(rgba, mask=rgba)
    return flat


def _vanishes(rgba: Image.Image, on_white: Image.Image) -> bool:
    """Tell whether the picture differs too little from white where it is visible."""
    weights = rgba.getchannel("A").histogram()
    visible = sum(alpha * count for alpha, count in enumerate(weights)) / 255
    opaque = weights[-1] == rgba.width * rgba.height
    if opaque or not visible:
        return False
    # The strongest channel, since yellow and other light colours differ from white by one alone.
    ink = max(255 - mean for mean in ImageStat.Stat(on_white).mean) * rgba.width * rgba.height
    return ink < _LEAST_INK * visible

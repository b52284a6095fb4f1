"""Converts samples to sRGB as a browser does, if a picture's colour space is far from sRGB.

Pillow's littlecms does the transform. A profile is a small program: only short profiles
of simple kinds reach littlecms.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Sequence
from typing import Any, Final, cast

from PIL import Image, ImageCms

_FAR: Final = 16.0
"""The mean difference of 255 from which a colour space is converted.

Measured on a grid of colours: Display P3 and Adobe RGB differ from sRGB by 10, ProPhoto RGB by 22,
linear light by 36, swapped channels by 100.
"""

_MAX_PROFILE_BYTES: Final = 2**20
_MAX_TAGS: Final = 100
_HEADER_BYTES: Final = 128
_CLASSES: Final = frozenset({b"mntr", b"scnr", b"prtr", b"spac"})
"""Classes of profiles for devices and spaces; device links and named colours are excluded."""

_PROGRAMS: Final = b"mpet"
"""Chains of processing elements: each costs time for every point of a table."""

_MIN_RANGE: Final = 128
"""A profile that maps a channel to a smaller range is broken."""

_LEVELS: Final = (0, 51, 102, 153, 204, 255)
_GAMMAS: Final = (0.1, 10.0)
_SRGB_TOE: Final = 0.0031308


def as_shown(picture: Image.Image, info: dict[Any, Any], *, grey: bool) -> Image.Image:
    """Return the RGB or RGBA picture in sRGB; unchanged if it nearly is.

    Args:
        picture: changed in place if an RGB profile converts it.
        info: Pillow's metadata; a profile takes precedence over PNG's gamma.
        grey: the file has a single channel.
    """
    profile = info.get("icc_profile")
    if isinstance(profile, bytes) and profile:
        if grey:
            return _mapped(picture, _grey_levels(profile))
        if _is_far(profile):
            _convert(picture, profile)
        return picture
    if "srgb" in info or not isinstance(gamma := info.get("gamma"), float):
        return picture
    return _mapped(picture, _gamma_levels(gamma))


def _mapped(picture: Image.Image, levels: Sequence[int] | None) -> Image.Image:
    if levels is None:
        return picture
    alpha = list(range(256)) if picture.mode == "RGBA" else []
    return picture.point([*levels, *levels, *levels, *alpha])


def _convert(picture: Image.Image, profile: bytes) -> None:
    ImageCms.applyTransform(picture, _transform(profile, picture.mode), inPlace=True)


@functools.lru_cache(maxsize=64)
def _is_far(profile: bytes) -> bool:
    """Return whether an RGB profile can be read and is far from sRGB."""
    if not _is_plain(profile, b"RGB "):
        return False
    grid = Image.new("RGB", (len(_LEVELS) ** 2, len(_LEVELS)))
    grid.putdata([(r, g, b) for r in _LEVELS for g in _LEVELS for b in _LEVELS])
    before = grid.tobytes()
    try:
        _convert(grid, profile)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return False
    flat = any(high - low < _MIN_RANGE for low, high in _ranges(grid))
    return not flat and _difference(before, grid.tobytes()) > _FAR


@functools.lru_cache(maxsize=64)
def _grey_levels(profile: bytes) -> tuple[int, ...] | None:
    """Return each level after a grey profile; None if they hardly change, or it is unreadable."""
    if not _is_plain(profile, b"GRAY"):
        return None
    ramp = Image.frombytes("L", (256, 1), bytes(range(256)))
    try:
        shown = ImageCms.applyTransform(ramp, _transform(profile, "L"))
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    return _if_far(shown.getchannel("G").tobytes() if shown else bytes(range(256)))


@functools.lru_cache(maxsize=64)
def _gamma_levels(gamma: float) -> tuple[int, ...] | None:
    """Return each level after PNG's gAMA; None if they hardly change, or it is invalid."""
    if not _GAMMAS[0] <= gamma <= _GAMMAS[1]:
        return None
    lights = ((level / 255) ** (1 / gamma) for level in range(256))
    return _if_far(bytes(round(255 * _srgb(light)) for light in lights))


def _ranges(picture: Image.Image) -> list[tuple[int, int]]:
    return [cast("tuple[int, int]", band.getextrema()) for band in picture.split()]


def _if_far(levels: bytes) -> tuple[int, ...] | None:
    return tuple(levels) if _difference(bytes(range(256)), levels) > _FAR else None


def _srgb(light: float) -> float:
    return 12.92 * light if light <= _SRGB_TOE else 1.055 * light ** (1 / 2.4) - 0.055


def _difference(one: bytes, other: bytes) -> float:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform:
    """Create the transform from the profile to sRGB as browsers do: relative to the white point.

    Created for each image: littlecms allows a transform in one thread at a time.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    return ImageCms.buildTransform(
        source, target, mode, "RGB" if mode == "L" else mode,
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )  # fmt: skip


def _is_plain(profile: bytes, space: bytes) -> bool:
    """Return whether littlecms may read the profile: short, of that space, without programs."""
    if not _HEADER_BYTES + 4 <= len(profile) <= _MAX_PROFILE_BYTES:
        return False
    (tags,) = struct.unpack_from(">L", profile, _HEADER_BYTES)
    return (
        profile[36:40] == b"acsp"
        and profile[16:20] == space
        and profile[12:16] in _CLASSES
        and tags <= _MAX_TAGS
        and _PROGRAMS not in profile
    )

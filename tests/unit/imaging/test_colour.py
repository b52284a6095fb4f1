"""Colour profiles far from sRGB are converted as in a browser; others change no pixel."""

from __future__ import annotations

import struct
import zlib
from typing import Any, Final

import pytest
from PIL import Image, ImageCms

from services.shared import imaging
from tests.support import pictures, profiles

LIMITS = imaging.Limits(max_bytes=2**21, max_pixels=1_000_000, max_aspect=100.0)
LINEAR: Final = [
    round(255 * (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4))
    for v in (level / 255 for level in range(256))
]
"""The linear light of each sRGB level."""


def _light(picture: Image.Image) -> Image.Image:
    return picture.point(LINEAR * len(picture.getbands()))


def _decoded(picture: Image.Image, name: str, **options: Any) -> Image.Image:
    return imaging.decode(pictures.encoded(picture, name, **options), LIMITS)


@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF"])
def test_linear_light_looks_as_in_a_browser(name: str) -> None:
    """The picture is converted in each format that carries a profile."""
    options = {"lossless": True} if name == "WEBP" else {"quality": 95} if name != "PNG" else {}
    profile = profiles.rgb(profiles.SRGB, 1.0)
    light = _light(pictures.scene())
    assert pictures.difference(light, pictures.scene()) > 40
    decoded = _decoded(light, name, icc_profile=profile, **options)
    assert pictures.difference(decoded, pictures.scene()) < 12


def test_swapped_channels_are_swapped_back() -> None:
    """A profile with swapped primaries swaps the channels back."""
    red, green, blue = pictures.scene().split()
    red_xyz, green_xyz, blue_xyz = profiles.SRGB
    profile = profiles.rgb((green_xyz, blue_xyz, red_xyz), 2.2)
    decoded = _decoded(Image.merge("RGB", (green, blue, red)), "PNG", icc_profile=profile)
    assert pictures.difference(decoded, pictures.scene()) < 8


@pytest.mark.parametrize(
    "profile",
    [
        profiles.rgb(profiles.SRGB, 2.2),
        profiles.rgb(profiles.DISPLAY_P3, 2.2),
        profiles.rgb(profiles.ADOBE_RGB, 2.2),
        profiles.rgb(profiles.SRGB, 1.8),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    ],
    ids=["sRGB", "P3", "Adobe", "gamma 1.8", "littlecms"],
)
def test_a_profile_near_srgb_changes_nothing(profile: bytes) -> None:
    """The pixels stay equal to the bit, so photographs of phones and cameras keep their vectors."""
    plain, profiled = (_decoded(pictures.scene(), "PNG", **options)
                       for options in ({}, {"icc_profile": profile}))  # fmt: skip
    assert pictures.difference(plain, profiled) == 0


def test_prophoto_is_converted() -> None:
    """The widest colour space of photographs is far from sRGB, and is converted."""
    profile = profiles.rgb(profiles.PROPHOTO, 1.8)
    assert pictures.difference(
        _decoded(pictures.scene(), "PNG", icc_profile=profile), pictures.scene()
    ) > 10  # fmt: skip


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_in_linear_light_is_brightened(mode: str) -> None:
    """Grey of 8 and 16 bits is converted by a grey profile."""
    grey = pictures.scene().convert("L")
    light = _light(grey)
    if mode == "I;16":
        words = b"".join(bytes((0, value)) for value in light.tobytes())
        light = Image.frombytes("I;16", grey.size, words)
    else:
        light = light.convert(mode)
    name = "TIFF" if mode == "I;16" else "PNG"
    decoded = _decoded(light, name, icc_profile=profiles.grey(1.0))
    assert pictures.difference(decoded, grey.convert("RGB")) < 8


def test_transparent_pictures_keep_their_transparency() -> None:
    """Colours are converted, and alpha is not."""
    picture = _light(pictures.scene()).convert("RGBA")
    picture.paste((0, 0, 0, 0), (0, 0, 48, 64))
    decoded = _decoded(picture, "PNG", icc_profile=profiles.rgb(profiles.SRGB, 1.0))
    assert decoded.getpixel((10, 10)) == (255, 255, 255)
    right = (48, 0, 96, 64)
    assert pictures.difference(decoded.crop(right), pictures.scene().crop(right)) < 6


def test_cmyk_keeps_its_colours() -> None:
    """Profiles of CMYK are large, and browsers disagree on them, so none is read."""
    picture = pictures.scene().convert("CMYK")
    plain = _decoded(picture, "JPEG", quality=95)
    for profile in (
        profiles.profile(b"CMYK", {b"A2B0": bytes(64)}),
        profiles.rgb(profiles.SRGB, 1),
    ):
        profiled = _decoded(picture, "JPEG", quality=95, icc_profile=profile)
        assert pictures.difference(plain, profiled) == 0


_SOUND: Final = profiles.rgb(profiles.SRGB, 1.0)


@pytest.mark.parametrize(
    "profile",
    [
        b"no profile at all",
        _SOUND[:200],
        _SOUND[:128] + struct.pack(">L", 2**31) + _SOUND[132:],
        _SOUND.replace(b"curv", b"mpet"),
        _SOUND.replace(b"mntr", b"link"),
        _SOUND + bytes(2**20),
        profiles.rgb(((0.0, 0.0, 0.0),) * 3, 1.0),
        profiles.profile(b"RGB ", {b"A2B0": b"mAB " + bytes(200)}),
    ],
    ids=[
        "words",
        "cut",
        "countless tags",
        "a program",
        "a link",
        "long",
        "no colours",
        "no curves",
    ],
)
def test_broken_and_hostile_profiles_change_nothing(profile: bytes) -> None:
    """The samples are used without a conversion."""
    image = pictures.encoded(pictures.scene(), "JPEG", icc_profile=profile, quality=95)
    plain = pictures.encoded(pictures.scene(), "JPEG", quality=95)
    assert pictures.difference(imaging.decode(image, LIMITS), imaging.decode(plain, LIMITS)) < 1


def _with_gamma(picture: Image.Image, gamma: float, *, also: bytes = b"") -> bytes:
    image = pictures.encoded(picture, "PNG")
    body = b"gAMA" + struct.pack(">L", round(gamma * 100_000))
    return (
        image[:33]
        + struct.pack(">L", 4)
        + body
        + struct.pack(">L", zlib.crc32(body))
        + also
        + image[33:]
    )


def test_a_pngs_own_gamma_counts_where_it_is_far_off() -> None:
    """Linear light without a profile is converted by gAMA, which renderers write."""
    decoded = imaging.decode(_with_gamma(_light(pictures.scene()), 1.0), LIMITS)
    assert pictures.difference(decoded, pictures.scene()) < 6


@pytest.mark.parametrize("gamma", [0.45455, 0.55, 0.0, 20.0])
def test_a_usual_or_senseless_gamma_changes_nothing(gamma: float) -> None:
    """Nearly all gAMA chunks hold the usual gamma, which needs no conversion."""
    decoded = imaging.decode(_with_gamma(pictures.scene(), gamma), LIMITS)
    assert pictures.difference(decoded, pictures.scene()) == 0


def test_srgb_goes_before_gamma() -> None:
    """The chunk sRGB overrides gAMA, as in the PNG standard."""
    body = b"sRGB\0"
    chunk = struct.pack(">L", 1) + body + struct.pack(">L", zlib.crc32(body))
    image = _with_gamma(pictures.scene(), 1.0, also=chunk)
    assert pictures.difference(imaging.decode(image, LIMITS), pictures.scene()) == 0

"""Mutates images at random, the same way for the same seed."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from tests.support import pictures

_FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JPEG2000")
_EXTREMES: Final = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_HEADER: Final = 400


def originals() -> Sequence[bytes]:
    """Return thumbnails in every format, and odd files of each format."""
    scene, odd = pictures.scene(), pictures.exif(6)
    plain = [pictures.encoded(scene, name) for name in _FORMATS]
    frames = {"save_all": True, "append_images": [scene.rotate(90).resize(scene.size)] * 3}
    return [
        *plain,
        pictures.encoded(scene, "JPEG", progressive=True, exif=odd),
        pictures.encoded(scene.convert("CMYK"), "JPEG"),
        pictures.encoded(scene, "MPO", **frames),
        pictures.encoded(scene.convert("P"), "PNG", transparency=0),
        pictures.encoded(scene.convert("RGBA"), "PNG", exif=odd),
        pictures.encoded(scene, "WEBP", lossless=True, exif=odd),
        pictures.encoded(scene, "WEBP", **frames),
        pictures.encoded(scene, "GIF", **frames),
        pictures.encoded(scene, "TIFF", compression="tiff_lzw"),
        pictures.encoded(scene, "TIFF", compression="jpeg"),
        pictures.encoded(scene.convert("RGBA"), "TIFF", compression="tiff_adobe_deflate"),
        pictures.encoded(scene, "AVIF", **frames),
        pictures.encoded(scene.convert("RGBA"), "HEIF"),
    ]


def mutated(count: int, seed: int) -> Iterator[bytes]:
    """Yield `count` mutated images."""
    chance = random.Random(seed)  # noqa: S311 (the same ones each time)
    bases = originals()
    for number in range(count):
        image = bytearray(bases[number % len(bases)])
        for _ in range(chance.choice((1, 1, 2, 4, 16))):
            change = chance.choice(_CHANGES)
            image = change(image, chance, bases) if image else image
        yield bytes(image)


def _place(image: bytearray, chance: random.Random) -> int:
    """Return a position, near the start in most cases."""
    end = min(len(image), _HEADER) if chance.random() < 0.7 else len(image)
    return chance.randrange(end)


def _byte(image: bytearray, chance: random.Random, _: Sequence[bytes]) -> bytearray:
    image[_place(image, chance)] = chance.randrange(256)
    return image


def _bit(image: bytearray, chance: random.Random, _: Sequence[bytes]) -> bytearray:
    image[_place(image, chance)] ^= 1 << chance.randrange(8)
    return image


def _number(image: bytearray, chance: random.Random, _: Sequence[bytes]) -> bytearray:
    """Write an extreme length, size or offset."""
    kind = chance.choice((">I", "<I", ">H", "<H"))
    place, width = _place(image, chance), struct.calcsize(kind)
    value = chance.choice(_EXTREMES) & ((1 << 8 * width) - 1)
    image[place : place + width] = struct.pack(kind, value)
    return image


def _cut(image: bytearray, chance: random.Random, _: Sequence[bytes]) -> bytearray:
    return image[: _place(image, chance)]


def _removed(image: bytearray, chance: random.Random, _: Sequence[bytes]) -> bytearray:
    place = _place(image, chance)
    del image[place : place + chance.randrange(1, 64)]
    return image


def _repeated(image: bytearray, chance: random.Random, _: Sequence[bytes]) -> bytearray:
    place = _place(image, chance)
    piece = image[place : place + chance.randrange(1, 256)]
    image[place:place] = piece * chance.randrange(1, 100)
    return image


def _foreign(image: bytearray, chance: random.Random, bases: Sequence[bytes]) -> bytearray:
    """Copy a part of another image."""
    other = chance.choice(bases)
    start = chance.randrange(len(other))
    image[_place(image, chance) :] = other[start:]
    return image


_CHANGES: Final[Sequence[Callable[[bytearray, random.Random, Sequence[bytes]], bytearray]]] = (
    _byte, _byte, _bit, _bit, _number, _number, _cut, _removed, _repeated, _foreign,
)  # fmt: skip

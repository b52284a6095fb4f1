"""Writes ICC profiles by hand: a matrix and a curve, as displays and cameras have them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final

Matrix = Sequence[tuple[float, float, float]]
"""The XYZ values (at D50) of red, green and blue."""

SRGB: Final = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
DISPLAY_P3: Final = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
ADOBE_RGB: Final = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
PROPHOTO: Final = ((0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0), (0.0313, 0.0001, 0.8249))


def rgb(matrix: Matrix, gamma: float) -> bytes:
    """Return a display profile of those primaries, whose samples are light ** (1 / gamma)."""
    curve = struct.pack(">4s4xLH", b"curv", 1, round(gamma * 256))
    tags = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(_xyz, matrix), strict=True))
    return profile(b"RGB ", tags | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))


def grey(gamma: float) -> bytes:
    """Return a profile of one grey channel with that gamma."""
    return profile(b"GRAY", {b"kTRC": struct.pack(">4s4xLH", b"curv", 1, round(gamma * 256))})


def profile(space: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    """Return a profile of that colour space with these tags and those that every profile needs."""
    words = b"drawn\0"
    text = struct.pack(">4s4xL", b"desc", len(words)) + words + bytes(78)
    tags = {b"desc": text, b"wtpt": _xyz((0.9642, 1.0, 0.8249)), **tags}
    start = 128 + 4 + 12 * len(tags)
    table, data = struct.pack(">L", len(tags)), b""
    for name, body in tags.items():
        table += struct.pack(">4sLL", name, start + len(data), len(body))
        data += body + bytes(-len(body) % 4)
    head = struct.pack(
        ">L4sL4s4s4s12x4s24x3l48x", start + len(data), bytes(4), 0x02400000, b"mntr", space,
        b"XYZ ", b"acsp", *(round(value * 65536) for value in (0.9642, 1.0, 0.8249)),
    )  # fmt: skip
    return head[:128].ljust(128, b"\0") + table + data


def _xyz(values: Sequence[float]) -> bytes:
    return struct.pack(">4s4x3l", b"XYZ ", *(round(value * 65536) for value in values))

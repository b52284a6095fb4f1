"""Writes TIFFs by hand, of kinds that Pillow doesn't write."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final

_FORMS: Final = {1: "B", 3: "H", 4: "L"}
Tags = Mapping[int, tuple[int, Sequence[int]]]
"""The type and the values of each tag number."""


def tiff(
    data: bytes,
    *,
    bits: int,
    photometric: int,
    samples: int = 1,
    more: Tags | None = None,
    planes: int = 1,
    order: str = "<",
    width: int = 4,
) -> bytes:
    """Return a TIFF of one row of uncompressed pixels, its planes one after the other.

    `more` adds tags, or replaces the usual ones.
    """
    part = len(data) // planes
    tags: dict[int, tuple[int, Sequence[int]]] = {
        256: (4, [width]), 257: (4, [1]), 258: (3, [bits] * samples), 259: (3, [1]),
        262: (3, [photometric]), 273: (4, [8 + part * number for number in range(planes)]),
        277: (3, [samples]), 278: (4, [1]), 279: (4, [part] * planes),
        284: (3, [2 if planes > 1 else 1]), **(more or {}),
    }  # fmt: skip
    body, start, lines = bytearray(data), 8, b""
    for number, (kind, values) in sorted(tags.items()):
        raw = struct.pack(f"{order}{len(values)}{_FORMS[kind]}", *values)
        if len(raw) > 4:
            body += bytes(len(body) % 2)
            place = start + len(body)
            body += raw
            raw = struct.pack(f"{order}L", place)
        lines += struct.pack(f"{order}HHL", number, kind, len(values)) + raw.ljust(4, b"\0")
    head = b"II*\0" if order == "<" else b"MM\0*"
    directory = struct.pack(f"{order}H", len(tags)) + lines + bytes(4)
    body += bytes(len(body) % 2)
    return head + struct.pack(f"{order}L", start + len(body)) + body + directory

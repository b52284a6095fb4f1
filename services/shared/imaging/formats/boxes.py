"""Reads the boxes of HEIF, AVIF and MP4 files, with bounds on their number."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from services.shared.errors import UndecodableImage
from services.shared.imaging.reading import Fields

MAX_BOXES: Final = 4_096
"""The maximum of sibling boxes. A tiled photograph has a box for each tile in three places."""

_FULL: Final = 4
"""The bytes of version and flags at the start of a full box."""


class Box(NamedTuple):
    """A box's type, and the place of its content in the file."""

    kind: bytes
    start: int
    end: int


def boxes(image: bytes, start: int, end: int, *, cut: bool = False) -> Iterator[Box]:
    """Yield the sibling boxes in a part of the file.

    cut: end at a box that does not fit, since phones append data of their own. Raises
    UndecodableImage.
    """
    count = 0
    while start + 8 <= end:
        count += 1
        at_most(count, MAX_BOXES, "boxes side by side")
        fields = Fields(image, start, end)
        size, kind = fields.number(4), fields.raw(4)
        if size == 1:
            size = fields.number(8)
        elif size == 0:
            size = end - start
        after = start + size
        if after > end or after < fields.place:
            if cut:
                return
            message = f"the image is cut short: a box of {size} bytes does not fit"
            raise UndecodableImage(message)
        yield Box(kind, fields.place, after)
        start = after


def by_kind(
    image: bytes, start: int, end: int, kinds: Collection[bytes], *, cut: bool = False
) -> dict[bytes, Box]:
    """Return the boxes of these kinds, each at most once. Raises as `boxes` does."""
    found: dict[bytes, Box] = {}
    for box in boxes(image, start, end, cut=cut):
        if box.kind not in kinds:
            continue
        if box.kind in found:
            message = f"the image has two boxes {box.kind.decode('latin-1')!r}"
            raise UndecodableImage(message)
        found[box.kind] = box
    return found


def at_most(count: int, limit: int, noun: str) -> None:
    """Raise UndecodableImage if the image has too many of something."""
    if count > limit:
        message = f"the image has more than {limit} {noun}"
        raise UndecodableImage(message)


def full(image: bytes, box: Box) -> tuple[int, int, Fields]:
    """Return a full box's version and flags, and its fields."""
    fields = Fields(image, box.start, box.end)
    head = fields.number(_FULL)
    return head >> 24, head & 0xFFFFFF, fields

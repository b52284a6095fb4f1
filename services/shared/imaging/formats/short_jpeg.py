"""Completes JPEGs that lack their end marker or their last rows."""

from __future__ import annotations

import io
from typing import Final

from PIL import Image, ImageChops

from services.shared.errors import UndecodableImage
from services.shared.imaging.formats import jpeg, jpeg_metadata

_END: Final = b"\xff\xd9"
_OTHER_BITS: Final = bytes(range(1, 255)) * 16
"""Arbitrary data: a decoder that lacks data makes other pixels of it than of the end marker."""

_MAX_MISSING: Final = 0.1
_BLOCK_ROWS: Final = 16
"""The rows of a block row: a file may lack them even if that is a large share."""

_COEFFICIENTS: Final = 64
"""The coefficients of a block."""

_LENGTH: Final = 4
"""The bytes of a scan's marker and length; the number of components follows."""


def ends_early(image: bytes) -> bool:
    """Return whether a JPEG has no end marker after its first scan's start: a quick check.

    The check is incomplete: another marker may follow, such as that of a second picture.
    """
    if image.endswith(_END) or not image.startswith(jpeg.START):
        return False
    starts = [segment.start for segment in jpeg.segments(image) if segment.is_scan]
    return bool(starts) and image.rfind(_END) < starts[0]


def completed(image: bytes) -> bytes:
    """Return the JPEG with an end marker, if only a little is missing; the rest is grey.

    Raises:
        UndecodableImage: too much is missing; the detail names the share.
    """
    frame = jpeg.frame(image)
    if frame is None or not _all_scans(image, frame):
        message = "the JPEG ends early: scans that refine it are missing; send all of it"
        raise UndecodableImage(message)
    height, missing = _missing_rows(image)
    if missing > max(_MAX_MISSING * height, _BLOCK_ROWS) or 2 * missing > height:
        message = f"the JPEG ends early: {100 * missing / height:.0f} % of its rows are missing; "
        raise UndecodableImage(message + "send all of it")
    return image + _END


def _missing_rows(image: bytes) -> tuple[int, int]:
    """Return the rows of the picture, and how many of them are missing.

    Missing rows differ when the data is continued in two different ways.
    """
    height, one = _small(image + _END)
    _, other = _small(image + _OTHER_BITS + _END)
    box = ImageChops.difference(one, other).getbbox()
    known = one.height if box is None else box[1]
    return height, round(height * (1 - known / one.height))


def _small(image: bytes) -> tuple[int, Image.Image]:
    """Return the picture's height, and the picture at an eighth of its size: a block is a pixel."""
    read = jpeg_metadata.without_metadata(image)
    with Image.open(io.BytesIO(read), formats=jpeg.FAMILY) as opened:
        height = opened.height
        opened.draft(None, (1, 1))
        return height, opened.convert("RGB")


def _all_scans(image: bytes, frame: jpeg.Frame) -> bool:
    """Return whether every coefficient has arrived, the last scan at least in part."""
    if not frame.in_scans:
        return True
    starts = {segment.marker: segment.start for segment in jpeg.segments(image)}
    place = starts[jpeg.SCAN_START[1]] - 4
    left: dict[int, set[int]] = {}
    for marker, start in starts.items():
        if marker in jpeg.FRAME_MARKERS:
            components = image[start + 6 : start + 6 + 3 * image[start + 5] : 3]
            left = {component: set(range(_COEFFICIENTS)) for component in components}
    while 0 <= place < len(image) - _LENGTH:
        chosen = image[place + 5 : place + 5 + 2 * image[place + _LENGTH] : 2]
        end = place + 5 + 2 * len(chosen)
        if end + 3 <= len(image) and image[end + 2] & 0xF == 0:
            # These coefficients have all of their bits.
            for component in chosen:
                left.get(component, set()).difference_update(range(image[end], image[end + 1] + 1))
        place = image.find(jpeg.SCAN_START, place + 2)
    return not any(left.values())

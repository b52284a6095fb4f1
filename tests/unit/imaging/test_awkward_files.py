"""The decoder handles real odd and hostile files as their notes demand."""

from __future__ import annotations

import csv

import pytest
from PIL import ImageStat

from services.shared import imaging
from services.shared.errors import SimileError
from tests.support import pictures
from tests.support.photographs import awkward_dir

LIMITS = imaging.Limits(max_bytes=15 * 2**20, max_pixels=64_000_000, max_aspect=100.0)
REFUSED = {
    "truncated_half.jpg": "undecodable_image",
    "truncated_header.jpg": "undecodable_image",
    "extreme_aspect.png": "extreme_aspect",
    "bomb_400Mpx.png": "too_many_pixels",
    "empty.jpg": "empty_image",
    "text.jpg": "unsupported_format",
    "vector.svg": "unsupported_format",
}


def _outcome(image: bytes) -> str:
    try:
        imaging.decode(image, LIMITS, target=512)
    except SimileError as error:
        return error.code
    return "decoded"


def test_every_awkward_file_gets_what_its_note_calls_for() -> None:
    """Each file decodes, or is refused with the code of its fault."""
    folder = awkward_dir()
    with (folder / "NOTES.csv").open(encoding="utf-8", newline="") as notes:
        names = [row["file"] for row in csv.DictReader(notes)]
    outcomes = {name: _outcome((folder / name).read_bytes()) for name in names}
    assert outcomes == {name: REFUSED.get(name, "decoded") for name in names}


@pytest.mark.parametrize("turn", [3, 6, 8])
def test_turned_photographs_match_their_upright_original(turn: int) -> None:
    """The three EXIF files give nearly the pixels of their reference."""
    folder = awkward_dir()
    upright = (folder / "exif_orientation_reference.jpg").read_bytes()
    turned = (folder / f"exif_orientation_{turn}.jpg").read_bytes()
    one, other = imaging.decode(upright, LIMITS), imaging.decode(turned, LIMITS)
    assert pictures.difference(one, other) < 3


def test_sixteen_bit_grey_is_not_white() -> None:
    """The 16-bit photograph keeps its greys."""
    decoded = imaging.decode((awkward_dir() / "gray16.png").read_bytes(), LIMITS)
    mean = ImageStat.Stat(decoded).mean[0]
    assert 60 < mean < 190

"""Draws queries beside their neighbours as a picture, to show what an evaluation's scores mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont, ImageOps

from services.searcher.admin.duplicates import Group
from services.searcher.admin.evaluation import load, nearest_others
from services.shared import imaging
from services.shared.errors import FileUnusable, SimileError
from services.shared.printable import printable
from services.shared.volume.items import Item
from services.shared.volume.volume import Volume

_CELL: Final = 120
_GAP: Final = 8
_CAPTION: Final = 16
_FRAME: Final = 4
_ROWS: Final = 16
_MAX_GROUPS: Final = 40
_MAX_IN_LINE: Final = 11
_RIGHT: Final = (46, 139, 87)
_WRONG: Final = (200, 60, 50)
_QUERY: Final = (70, 80, 100)
_MISSING: Final = (210, 210, 210)
_LIMITS: Final = imaging.Limits(max_bytes=2**30, max_pixels=10**9, max_aspect=1e9)


def draw_contact_sheet(
    volume: Volume, collection: str, version: str, out: Path, *, k: int = 10
) -> None:
    """Write a picture: queries of up to 16 labels, each followed by its k neighbours.

    A green frame means the same label, red another; a neighbour without a label has the frame of
    a query. An image that can't be read any more is a grey cell.
    """
    items, vectors = load(volume, collection, version)
    rows = _queries(items)
    neighbors = nearest_others(vectors, rows, min(k, len(items) - 1))
    lines = [
        (items[row], [items[position] for position in found])
        for row, found in zip(rows, neighbors.tolist(), strict=True)
    ]
    _draw_lines(Path(volume.manifest(collection, version).images_root), lines, out)


def draw_groups(
    volume: Volume, collection: str, version: str, groups: Sequence[Group], out: Path
) -> None:
    """Write a picture: up to 40 groups of near-duplicates, a line each, the first item in front.

    A red frame means another label than that of the first item.
    """
    lines = [(group.items[0], group.items[1 : _MAX_IN_LINE + 1]) for group in groups[:_MAX_GROUPS]]
    _draw_lines(Path(volume.manifest(collection, version).images_root), lines, out)


def _draw_lines(root: Path, lines: Sequence[tuple[Item, Sequence[Item]]], out: Path) -> None:
    longest = max(len(others) for _, others in lines)
    width = (_CELL + _GAP) * (longest + 1) + 2 * _GAP
    sheet = Image.new("RGB", (width, (_CELL + _CAPTION + _GAP) * len(lines) + _GAP), "white")
    for number, (first, others) in enumerate(lines):
        top = _GAP + number * (_CELL + _CAPTION + _GAP)
        _draw(sheet, _GAP, top, root, first, _QUERY)
        for column, item in enumerate(others, start=1):
            frame = _RIGHT if item.label == first.label else _WRONG if item.label else _QUERY
            _draw(sheet, 2 * _GAP + column * (_CELL + _GAP), top, root, item, frame)
    try:
        sheet.save(out)
    except OSError as error:
        message = f"the contact sheet {out} can't be written: {error.strerror or error}"
        raise FileUnusable(message) from error


def _queries(items: Sequence[Item]) -> list[int]:
    """Return the middle item of each of up to 16 labels spread over all labels."""
    by_label: dict[str, list[int]] = {}
    for position, item in enumerate(items):
        if item.label:
            by_label.setdefault(item.label, []).append(position)
    names = sorted(by_label)
    taken = min(_ROWS, len(names))
    chosen = [by_label[names[number * len(names) // taken]] for number in range(taken)]
    return [positions[len(positions) // 2] for positions in chosen]


def _draw(
    sheet: Image.Image, left: int, top: int, root: Path, item: Item, frame: tuple[int, int, int]
) -> None:
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((left, top, left + _CELL - 1, top + _CELL - 1), fill=frame)
    inner = _CELL - 2 * _FRAME
    sheet.paste(_cell(root / item.path, inner), (left + _FRAME, top + _FRAME))
    font = ImageFont.load_default(11)
    pen.text((left, top + _CELL + 2), printable(item.label)[:20], fill=(40, 40, 40), font=font)


def _cell(path: Path, size: int) -> Image.Image:
    try:
        picture = imaging.decode(path.read_bytes(), _LIMITS, target=size)
    except (OSError, SimileError):
        return Image.new("RGB", (size, size), _MISSING)
    return ImageOps.fit(picture, (size, size))

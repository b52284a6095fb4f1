"""Draws queries beside their neighbours as one picture: what the numbers of an evaluation mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont, ImageOps

from services.searcher.evaluation import load, nearest_others
from services.shared import imaging
from services.shared.collection import Item, Volume
from services.shared.errors import SimileError

_CELL: Final = 120
_GAP: Final = 8
_CAPTION: Final = 16
_FRAME: Final = 4
_ROWS: Final = 16
_RIGHT: Final = (46, 139, 87)
_WRONG: Final = (200, 60, 50)
_QUERY: Final = (70, 80, 100)
_MISSING: Final = (210, 210, 210)
_LIMITS: Final = imaging.Limits(max_bytes=2**30, max_pixels=10**9, max_aspect=1e9)


def draw_contact_sheet(
    volume: Volume, collection: str, version: str, out: Path, *, k: int = 10
) -> None:
    """Write a picture: queries of up to 16 labels, each followed by its k neighbours.

    A green frame means the same label, red another. What can't be read any more is a grey cell.
    """
    items, vectors = load(volume, collection, version)
    root = Path(volume.manifest(collection, version).images_root)
    rows = _queries(items)
    neighbors = nearest_others(vectors, rows, min(k, len(items) - 1))
    width = (_CELL + _GAP) * (neighbors.shape[1] + 1) + 2 * _GAP
    sheet = Image.new("RGB", (width, (_CELL + _CAPTION + _GAP) * len(rows) + _GAP), "white")
    for line, (row, found) in enumerate(zip(rows, neighbors.tolist(), strict=True)):
        query, top = items[row], _GAP + line * (_CELL + _CAPTION + _GAP)
        _draw(sheet, _GAP, top, root, query, _QUERY)
        for column, position in enumerate(found, start=1):
            item = items[position]
            frame = _RIGHT if item.label == query.label else _WRONG
            _draw(sheet, 2 * _GAP + column * (_CELL + _GAP), top, root, item, frame)
    sheet.save(out)


def _queries(items: Sequence[Item]) -> list[int]:
    """The middle item of each of up to 16 labels spread over all labels."""
    by_label: dict[str, list[int]] = {}
    for position, item in enumerate(items):
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
    pen.text((left, top + _CELL + 2), item.label[:20], fill=(40, 40, 40), font=font)


def _cell(path: Path, size: int) -> Image.Image:
    try:
        picture = imaging.decode(path.read_bytes(), _LIMITS, target=size)
    except (OSError, SimileError):
        return Image.new("RGB", (size, size), _MISSING)
    return ImageOps.fit(picture, (size, size))

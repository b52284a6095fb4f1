"""Sends images to a decoding process, and pixels or errors back, over its two pipes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Final

from PIL import Image

from services.shared.contracts import Box
from services.shared.image_limits import Limits

_MODE: Final = "RGB"
_STRIP_BYTES: Final = 2**20
"""Pixels are sent in strips: neither side holds them twice."""


@dataclass(frozen=True, slots=True)
class Task:
    """How to decode an image, and the maximum cost.

    target, box: as in `decode`. cpu_seconds: of all threads together. memory_bytes: beyond
    the memory that the process has before.
    """

    limits: Limits
    target: int | None
    box: Box | None
    cpu_seconds: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error's code and detail; ending: the process ends after it."""

    code: str
    detail: str
    ending: bool = False


def send_task(pipe: BinaryIO, task: Task, image: bytes) -> None:
    """Write a task and its image. Raises OSError."""
    _send(pipe, {**asdict(task), "bytes": len(image)})
    pipe.write(image)
    pipe.flush()


def read_task(pipe: BinaryIO) -> tuple[Task, bytes] | None:
    """Read the next task and its image; None at the pipe's end."""
    line = pipe.readline()
    if not line:
        return None
    fields = json.loads(line)
    image = read_exactly(pipe, fields.pop("bytes"))
    box = Box(**fields["box"]) if fields["box"] else None
    return Task(**{**fields, "limits": Limits(**fields["limits"]), "box": box}), image


def send_pixels(pipe: BinaryIO, picture: Image.Image) -> None:
    """Write an RGB picture."""
    _send(pipe, {"width": picture.width, "height": picture.height})
    strips = _strips(picture.width, picture.height)
    pipe.writelines(
        picture.crop((0, top, picture.width, bottom)).tobytes() for top, bottom in strips
    )
    pipe.flush()


def send_refusal(pipe: BinaryIO, refusal: Refusal) -> None:
    """Write the reason why there are no pixels."""
    _send(pipe, asdict(refusal))
    pipe.flush()


def read_answer(pipe: BinaryIO, max_pixels: int) -> Image.Image | Refusal:
    """Read a picture or a refusal. Raises EOFError, ValueError, KeyError if it is broken."""
    line = pipe.readline(_STRIP_BYTES)
    if not line.endswith(b"\n"):
        raise EOFError
    fields = json.loads(line)
    if "code" in fields:
        return Refusal(str(fields["code"]), str(fields["detail"]), bool(fields["ending"]))
    width, height = int(fields["width"]), int(fields["height"])
    if not 0 < width * height <= max_pixels:
        message = f"a decoding process answered {width} x {height} pixels"
        raise ValueError(message)
    picture = Image.new(_MODE, (width, height))
    for top, bottom in _strips(width, height):
        size = width, bottom - top
        strip = read_exactly(pipe, 3 * width * size[1])
        picture.paste(Image.frombuffer(_MODE, size, strip, "raw", _MODE, 0, 1), (0, top))
    return picture


def read_exactly(pipe: BinaryIO, size: int) -> bytes:
    """Read `size` bytes. Raises EOFError if the pipe ends earlier."""
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _send(pipe: BinaryIO, fields: Mapping[str, Any]) -> None:
    pipe.write(json.dumps(fields).encode() + b"\n")


def _strips(width: int, height: int) -> Iterator[tuple[int, int]]:
    rows = max(1, _STRIP_BYTES // (3 * width))
    for top in range(0, height, rows):
        yield top, min(height, top + rows)

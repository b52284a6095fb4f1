"""Draws pictures by code, for the decoder and the services."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageChops, ImageDraw, ImageStat
from PIL.TiffImagePlugin import ImageFileDirectory_v2

Color = tuple[int, int, int]


def scene(width: int = 96, height: int = 64) -> Image.Image:
    """Return a smooth picture without symmetry: a ramp, a red corner, a disc."""
    ramp = Image.linear_gradient("L").resize((width, height))
    picture = Image.merge("RGB", (ramp, ramp.transpose(Image.Transpose.ROTATE_180), ramp))
    drawing = ImageDraw.Draw(picture)
    drawing.rectangle((0, 0, width // 3, height // 4), fill=(220, 30, 30))
    drawing.ellipse((width // 2, height // 2, width - 4, height - 4), fill=(30, 60, 200))
    return picture


def encoded(picture: Image.Image, name: str, **options: Any) -> bytes:
    """Return the picture as a file of that Pillow format."""
    out = io.BytesIO()
    if name == "HEIF":
        import pillow_heif  # noqa: PLC0415 (no other test writes HEIC)

        # Pillow keeps its own HEIF decoder, the one that the services use.
        pillow_heif.from_pillow(picture).save(out, **options)
        return out.getvalue()
    picture.save(out, name, **options)
    return out.getvalue()


def plain_jpeg(color: Color, size: tuple[int, int] = (32, 32)) -> bytes:
    """Return a small JPEG of one colour."""
    return encoded(Image.new("RGB", size, color), "JPEG", quality=95)


def exif(orientation: int) -> bytes:
    """Return an EXIF block that holds only an orientation."""
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def tiff_tags(orientation: int) -> ImageFileDirectory_v2:
    """Return TIFF tags that hold only an orientation."""
    tags = ImageFileDirectory_v2()
    tags[0x0112] = orientation
    return tags


def png(width: int, height: int, depth: int, color_type: int, rows: Sequence[bytes]) -> bytes:
    """Return a PNG written by hand: depths that Pillow can't write, or a header without pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + checksum


def difference(one: Image.Image, other: Image.Image) -> float:
    """Return the mean absolute difference (0..255) of two equally large pictures' worst channel."""
    assert one.size == other.size
    channels: list[float] = ImageStat.Stat(ImageChops.difference(one, other)).mean
    return max(channels)

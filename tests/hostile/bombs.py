"""Builds files that cost a decoder far more than their bytes: pixels, frames, scans, tags.

Each passes the checks of the header, or is just as large as they allow.
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Final

from PIL import Image

from tests.support import pictures

MANY: Final = 15 * 2**20
"""The maximum number of bytes of an image."""

_PNG_START: Final = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return a PNG chunk."""
    checksum = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + checksum


def png(width: int, height: int, *, depth: int, color: int, interlaced: bool = False) -> bytes:
    """Return a PNG of one colour with all of its pixels, compressed chunk by chunk."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    bits = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color] * depth
    packer = zlib.compressobj(9)
    packed = []
    for across, down in _passes(width, height) if interlaced else [(width, height)]:
        row = bytes(1 + (across * bits + 7) // 8)
        together = max(1, 2**20 // len(row))
        rows = (min(together, down - start) for start in range(0, down, together))
        packed += [packer.compress(row * count) for count in rows]
    packed.append(packer.flush())
    palette = chunk(b"PLTE", bytes(768)) + chunk(b"tRNS", bytes(256)) if color == 3 else b""
    body = chunk(b"IDAT", b"".join(packed))
    return _PNG_START + chunk(b"IHDR", header) + palette + body + chunk(b"IEND", b"")


def _passes(width: int, height: int) -> list[tuple[int, int]]:
    steps = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
             (0, 1, 1, 2)]  # fmt: skip
    return [(-(-(width - x) // across), -(-(height - y) // down)) for x, y, across, down in steps]


def with_chunks(chunks: bytes) -> bytes:
    """Return a small PNG with these chunks before its pixels."""
    small = pictures.encoded(pictures.scene(), "PNG")
    end_of_header = len(_PNG_START) + 25
    return small[:end_of_header] + chunks + small[end_of_header:]


def text_bombs() -> bytes:
    """Return a PNG whose compressed texts and profile unpack to a thousand times their size."""
    packed = zlib.compress(bytes(2**26), 9)
    texts = b"".join(chunk(b"zTXt", b"k%d\0\0" % number + packed) for number in range(100))
    return with_chunks(chunk(b"iCCP", b"profile\0\0" + packed) + texts)


def countless_chunks() -> bytes:
    """Return a PNG of a million empty chunks."""
    return with_chunks(chunk(b"teXt", b"") * (MANY // 12 - 1000))


def countless_pieces() -> bytes:
    """Return a PNG whose pixel data comes in chunks of a byte."""
    pixels = zlib.compress(bytes(4097 * 4096), 0)[: MANY // 14]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4096, 4096, 8, 0, 0, 0, 0))
    return _PNG_START + header + b"".join(chunk(b"IDAT", bytes([byte])) for byte in pixels)


def long_exif() -> bytes:
    """Return a PNG whose EXIF block has 65,535 tags, each as long as the whole block."""
    length = 2**23
    tags = b"".join(struct.pack("<HHLL", tag, 1, length - 8, 8) for tag in range(65535))
    block = b"II*\0" + struct.pack("<LH", 8, 65535) + tags
    return with_chunks(chunk(b"eXIf", block + bytes(length - len(block))))


def countless_comments() -> bytes:
    """Return a GIF that begins with millions of one-byte comments."""
    small = pictures.encoded(pictures.scene(), "GIF")
    start = 13 + 3 * 2 ** ((small[10] & 7) + 1)
    comments = b"!\xfe\x01x\0" * ((MANY - len(small)) // 5)
    return small[:start] + comments + small[start:]


def long_comments() -> bytes:
    """Return a GIF of comments of maximum length."""
    small = pictures.encoded(pictures.scene(), "GIF")
    start = 13 + 3 * 2 ** ((small[10] & 7) + 1)
    comments = b"!\xfe" + (b"\xff" + b"x" * 255) * ((MANY - len(small)) // 256 - 1) + b"\0"
    return small[:start] + comments + small[start:]


def countless_frames() -> bytes:
    """Return a GIF of a hundred thousand frames of one pixel."""
    small = pictures.encoded(Image.new("P", (1, 1)), "GIF")
    first = small.index(b",")
    return small[:first] + small[first:-1] * (MANY // len(small[first:-1]) - 100) + small[-1:]


def webp_frames() -> bytes:
    """Return a WebP with the maximum number of frames."""
    small = pictures.encoded(Image.new("RGB", (16, 16)), "WEBP", lossless=True)
    frame = b"\0" * 6 + struct.pack("<I", 15)[:3] * 2 + struct.pack("<I", 10)[:3] + b"\0"
    body = small[12:]
    frames = (b"ANMF" + struct.pack("<I", len(frame + body)) + frame + body) * (
        (MANY - 100) // (8 + len(frame + body))
    )
    extended = b"VP8X" + struct.pack("<IB3x", 10, 2) + struct.pack("<I", 15)[:3] * 2
    animation = b"ANIM" + struct.pack("<IIH", 6, 0, 0)
    content = b"WEBP" + extended + animation + frames
    return b"RIFF" + struct.pack("<I", len(content)) + content


def webp_canvas() -> bytes:
    """Return an animation of two tiny frames on a canvas of 64 megapixels."""
    small = bytearray(
        pictures.encoded(
            Image.new("RGB", (16, 16)), "WEBP", save_all=True,
            append_images=[Image.new("RGB", (16, 16), "red")],
        )
    )  # fmt: skip
    where = small.index(b"VP8X") + 12
    small[where : where + 6] = struct.pack("<I", 7999)[:3] * 2
    return bytes(small)


def tiff(width: int, height: int, tags: Mapping[int, tuple[int, list[int]]], rest: bytes) -> bytes:
    """Return a TIFF of 8-bit grey from its tags; `rest` begins at byte 8."""
    entries = {
        256: (4, [width]), 257: (4, [height]), 258: (3, [8]), 259: (3, [1]), 262: (3, [1]),
        277: (3, [1]), **tags,
    }  # fmt: skip
    directory, outside = 8 + len(rest), b""
    after = directory + 2 + 12 * len(entries) + 4
    lines = b""
    for tag, (kind, values) in sorted(entries.items()):
        packed = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'L'}", *values)
        if len(packed) > 4:
            where, outside = struct.pack("<L", after + len(outside)), outside + packed
            packed = where
        lines += struct.pack("<HHL", tag, kind, len(values)) + packed.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<L", directory)
    return head + rest + struct.pack("<H", len(entries)) + lines + bytes(4) + outside


def countless_tiles() -> bytes:
    """Return a TIFF of 3.6 million tiles of one pixel, all at the same offset."""
    count = 1900
    tags = {322: (4, [1]), 323: (4, [1]), 324: (4, [8] * count**2), 325: (4, [1])}
    return tiff(count, count, tags, bytes(16))


def countless_strips() -> bytes:
    """Return a TIFF of 79,000 rows, all at the same offset."""
    tags = {273: (4, [8] * 79_000), 278: (3, [1]), 279: (4, [800] * 79_000)}
    return tiff(800, 79_000, tags, bytes(800))


def chain_of_directories() -> bytes:
    """Return a TIFF with the maximum number of pages, each linked to the next."""
    first = bytearray(tiff(4, 4, {273: (4, [8]), 278: (3, [4]), 279: (4, [16])}, bytes(16)))
    directory = struct.unpack_from("<L", first, 4)[0]
    count = struct.unpack_from("<H", first, directory)[0]
    page = bytes(first[directory : directory + 2 + 12 * count])
    step = len(page) + 4
    struct.pack_into("<L", first, directory + len(page), len(first))
    pages = [
        page + struct.pack("<L", len(first) + step * (number + 1))
        for number in range((MANY - len(first)) // step - 1)
    ]
    return bytes(first) + b"".join(pages) + page + bytes(4)


def jpeg_segments() -> bytes:
    """Return a JPEG of millions of empty segments."""
    small = pictures.encoded(pictures.scene(), "JPEG")
    return small[:2] + b"\xff\xe5\x00\x02" * ((MANY - len(small)) // 4) + small[2:]


def jpeg_padding() -> bytes:
    """Return a JPEG that begins with fill bytes."""
    small = pictures.encoded(pictures.scene(), "JPEG")
    return small[:2] + b"\xff" * (MANY - len(small)) + small[2:]


def jpeg_scans(count: int, side: int = 8000, *, progressive: bool = True) -> bytes:
    """Return a JPEG of many scans over all of its pixels, nearly all of them empty."""
    flat = pictures.encoded(
        Image.new("RGB", (side, side), "teal"), "JPEG", progressive=progressive, quality=50
    )
    if progressive:
        tables, scan = flat.rfind(b"\xff\xc4"), flat.rfind(b"\xff\xda")
        assert 0 < tables < scan
        return flat[:-2] + count * flat[tables:-2] + flat[-2:]
    # The frame has three components; each scan repeats one of them, without data.
    start = flat.rfind(b"\xff\xda")
    scans = b"".join(
        b"\xff\xda\x00\x08\x01" + bytes([1 + number % 3, 0]) + b"\x00\x3f\x00"
        for number in range(count)
    )
    return flat[:start] + scans + flat[-2:]


def jpeg_detailed(side: int = 8000) -> bytes:
    """Return a progressive JPEG with random colours, as large as the limits allow."""
    noise = Image.effect_noise((500, 500), 60).convert("RGB").resize((side, side))
    return pictures.encoded(noise, "JPEG", progressive=True, quality=60, subsampling=0)


def mpo_pictures() -> bytes:
    """Return an MPO of a thousand small pictures."""
    others = [Image.new("RGB", (16, 16), (number % 250, 0, 0)) for number in range(1000)]
    return pictures.encoded(pictures.scene(), "MPO", save_all=True, append_images=others)


def flat(name: str, side: int = 8000, mode: str = "RGB", **options: object) -> bytes:
    """Return a picture of one colour, as large as the limits allow."""
    return pictures.encoded(Image.new(mode, (side, side), 0), name, **options)


def jpeg2000_packets() -> bytes:
    """Return a JPEG 2000 with the maximum number of quality layers, in the smallest precincts."""
    image = bytearray(flat("JPEG2000", 1000, precinct_size=(256, 256)))
    place = image.index(b"\xff\x52")
    image[place + 6 : place + 8] = b"\xff\xff"
    for number in range(image[place + 9] + 1):
        image[place + 14 + number] = 0x11
    return bytes(image)


def shrunk_avif(side: int = 2000) -> bytes:
    """Return an AVIF whose container declares 16 x 16 and whose picture is large."""
    large = bytearray(flat("AVIF", side, speed=10))
    where = large.index(b"ispe") + 8
    large[where : where + 8] = struct.pack(">II", 16, 16)
    return bytes(large)


def tiff_one_strip() -> bytes:
    """Return a TIFF of 16-bit RGBA in a single strip."""
    side = 8000
    packed = zlib.compress(bytes(8 * side * side), 9)
    tags = {258: (3, [16] * 4), 259: (3, [8]), 262: (3, [2]), 273: (4, [8]), 277: (3, [4]),
            278: (4, [side]), 279: (4, [len(packed)]), 338: (3, [2])}  # fmt: skip
    return tiff(side, side, tags, packed + bytes(len(packed) % 2))


def bmp_runs() -> bytes:
    """Return a run-length BMP of 64 megapixels in runs of a pixel."""
    side = 8000
    runs = b"\x01\x00" * ((MANY - 2000) // 2)
    start = 14 + 40 + 1024
    head = struct.pack("<2sIHHI", b"BM", start + len(runs), 0, 0, start)
    sizes = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return head + sizes + bytes(1024) + runs


def jpeg_turned() -> bytes:
    """Return a CMYK JPEG with an EXIF rotation."""
    return flat("JPEG", mode="CMYK", exif=pictures.exif(6))


def shrunk_heif(side: int = 1000) -> bytes:
    """Return a HEIC whose container declares 16 x 16 and whose picture is large."""
    large = bytearray(flat("HEIF", side))
    start = 0
    while (start := large.find(b"ispe", start)) >= 0:
        large[start + 8 : start + 16] = struct.pack(">II", 64, 64)
        start += 4
    return bytes(large)


BOMBS: Final[Mapping[str, Callable[[], bytes]]] = {
    "png transparent": lambda: png(8000, 8000, depth=8, color=6),
    "png 16 bits grey": lambda: png(8000, 8000, depth=16, color=0),
    "png 16 bits transparent": lambda: png(8000, 8000, depth=16, color=6),
    "png interlaced": lambda: png(8000, 8000, depth=16, color=6, interlaced=True),
    "png palette": lambda: png(8000, 8000, depth=8, color=3),
    "png texts": text_bombs,
    "png countless chunks": countless_chunks,
    "png countless pieces": countless_pieces,
    "png long exif": long_exif,
    "gif flat": lambda: flat("GIF", mode="P"),
    "gif countless comments": countless_comments,
    "gif long comments": long_comments,
    "gif countless frames": countless_frames,
    "webp countless frames": webp_frames,
    "webp canvas": webp_canvas,
    "webp flat": lambda: flat("WEBP", lossless=True, method=0),
    "webp flat lossy": lambda: flat("WEBP", method=0),
    "tiff flat": lambda: flat("TIFF", compression="tiff_lzw"),
    "tiff flat deflate": lambda: flat("TIFF", mode="RGBA", compression="tiff_adobe_deflate"),
    "tiff flat jpeg": lambda: flat("TIFF", compression="jpeg"),
    "tiff countless tiles": countless_tiles,
    "tiff countless strips": countless_strips,
    "tiff chain": chain_of_directories,
    "tiff one strip": tiff_one_strip,
    "bmp runs": bmp_runs,
    "jpeg turned": jpeg_turned,
    "avif transparent": lambda: flat("AVIF", 4000, mode="RGBA", speed=10, subsampling="4:4:4"),
    "avif shrunk most": lambda: shrunk_avif(16000),
    "jpeg segments": jpeg_segments,
    "jpeg padding": jpeg_padding,
    "jpeg flat": lambda: flat("JPEG"),
    "jpeg cmyk": lambda: flat("JPEG", mode="CMYK"),
    "jpeg 40 scans": lambda: jpeg_scans(28),
    "jpeg 90 scans": lambda: jpeg_scans(90),
    "jpeg 90 scans of 16 megapixels": lambda: jpeg_scans(85, side=4000),
    "jpeg baseline scans": lambda: jpeg_scans(20_000, progressive=False),
    "jpeg detailed": jpeg_detailed,
    "jpeg detailed without an end": lambda: jpeg_detailed()[:-2],
    "jpeg2000 of one resolution": lambda: flat("JPEG2000", 3000, num_resolutions=1),
    "jpeg2000 countless packets": jpeg2000_packets,
    "mpo": mpo_pictures,
    "avif flat": lambda: flat("AVIF", speed=10),
    "heif flat": lambda: flat("HEIF", 2000),
    "avif shrunk": shrunk_avif,
    "heif shrunk": shrunk_heif,
}

REFUSED: Final = {
    "jpeg2000 countless packets": "undecodable_image",
    "png countless chunks": "undecodable_image",
    "png countless pieces": "undecodable_image",
    "gif countless comments": "undecodable_image",
    "tiff countless tiles": "undecodable_image",
    "bmp runs": "undecodable_image",
    "jpeg segments": "undecodable_image",
    "jpeg padding": "undecodable_image",
    "jpeg 90 scans": "undecodable_image",
    "jpeg baseline scans": "undecodable_image",
    "avif shrunk": "undecodable_image",
    "avif shrunk most": "too_many_pixels",
    "heif shrunk": "undecodable_image",
}
"""Bombs within the limits, which decode to a picture."""

SLOW_TO_MAKE: Final = {"avif shrunk most"}


@functools.cache
def bomb(name: str) -> bytes:
    """Return the named bomb's bytes; each is built once."""
    return BOMBS[name]()

"""Names valid image formats that are not supported, with the remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from services.shared.errors import UnsupportedFormat
from services.shared.imaging.formats import jpeg
from services.shared.imaging.formats.tiff import Tag, readable_tags

_SAVE: Final = "save it as JPEG or PNG"
_SAVE_TIFF: Final = "save it with 8 or 16 bits a channel and LZW, Deflate or no compression"
_RAW: Final = "a camera raw file"
_DEVELOP: Final = "develop it to JPEG, PNG or TIFF"

_MAGIC: Final[Sequence[tuple[int, bytes, str]]] = (
    (0, b"\xff\x0a", "a JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (0, b"II\xbc", "a JPEG XR"),
    (0, b"\xff\xd8\xff\xf7", "a JPEG-LS"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"gimp xcf", "a GIMP file"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"%PDF", "a PDF"),
    (0, b"%!PS", "a PostScript file"),
    (0, b"\0\0\1\0", "an icon file"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR file"),
    (0, b"#?RADIANCE", "a Radiance HDR file"),
    (0, b"DDS ", "a DirectDraw surface"),
    (0, b"qoif", "a QOI file"),
    (0, b"SIMPLE  =", "a FITS file"),
    (128, b"DICM", "a DICOM file"),
    (0, b"\x1aE\xdf\xa3", "a video"),
)
_RAW_MAGIC: Final[Sequence[tuple[int, bytes]]] = (
    (4, b"ftypcrx "), (0, b"FUJIFILMCCD-RAW"), (0, b"IIRO"), (0, b"IIRS"), (0, b"MMOR"),
    (0, b"IIU\0"), (0, b"FOVb"), (0, b"\0MRM"), (8, b"CR\x02"),
)  # fmt: skip
_CONTAINER: Final = b"ftyp"

_JPEG_FRAMES: Final[Mapping[int, str]] = {
    0xC3: "a lossless JPEG",
    0xC5: "a hierarchical JPEG",
    0xC6: "a hierarchical JPEG",
    0xC7: "a lossless JPEG",
    0xCB: "a lossless JPEG",
    0xF7: "a JPEG-LS",
}
_OTHER_JPEG_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_JPEG_BITS: Final = 8

_BITS, _COMPRESSION, _PHOTOMETRIC, _PLANAR, _PARTS, _SAMPLES = 258, 259, 262, 284, 330, 339
_DNG: Final = 50706
_TIFF_ORDERS: Final = frozenset({b"II", b"MM"})
_MAX_PARTS: Final = 8

_RAW_PHOTOMETRICS: Final = frozenset({32803, 34892})
_RAW_COMPRESSIONS: Final = frozenset({32767, 34713, 65535})
_READ_COMPRESSIONS: Final = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 32771, 32773, 32946, 34925, 50000})
_COMPRESSIONS: Final[Mapping[int, str]] = {
    33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000",
    34661: "JBIG", 34676: "LogLuv", 34677: "LogLuv", 34887: "LERC", 50001: "WebP",
    34927: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_SAMPLE_KINDS: Final[Mapping[int, str]] = {2: "signed", 3: "floating-point", 5: "complex"}
_READ_BITS: Final = frozenset({1, 2, 4, 8, 12, 16})

_Tags = Mapping[int, Tag]


def check(image: bytes, frame: jpeg.Frame | None) -> None:
    """Refuse a TIFF or JPEG of an unsupported kind, before it is opened.

    frame: of a usual JPEG, which is never refused.

    Pillow would decode the small preview of a camera raw file, and libtiff would print.

    Raises:
        UnsupportedFormat: with the kind and the remedy.
    """
    if image[:2] in _TIFF_ORDERS:
        _check_tiff(image)
    elif image.startswith(jpeg.START) and frame is None and (kind := _jpeg(image)):
        raise _unsupported(kind, _SAVE)


def _check_tiff(image: bytes) -> None:
    if any(image.startswith(magic, place) for place, magic in _RAW_MAGIC):
        raise _unsupported(_RAW, _DEVELOP)
    tags = readable_tags(image)
    if _is_raw(image, tags):
        raise _unsupported(_RAW, _DEVELOP)
    if reason := _reason(tags):
        kind, way = f"a TIFF with {reason}", _SAVE_TIFF
        raise _unsupported(kind, way)


def kind_of(image: bytes) -> UnsupportedFormat | None:
    """Return the error of a file that no decoder recognised; None for unknown kinds."""
    if any(image.startswith(magic, place) for place, magic in _RAW_MAGIC):
        return _unsupported(_RAW, _DEVELOP)
    for place, magic, kind in _MAGIC:
        if image.startswith(magic, place):
            return _unsupported(kind, _SAVE)
    if image.startswith(_CONTAINER, 4):
        brand = image[8:12].decode("ascii", "replace").strip()
        return _unsupported(f"a container of the kind {brand!r}", _SAVE)
    if image[:2] in _TIFF_ORDERS and (strange := _strange_tiff(image)):
        return _unsupported(strange, _SAVE)
    return None


def _unsupported(kind: str, way: str) -> UnsupportedFormat:
    return UnsupportedFormat(f"{kind} is not read: {way}")


def _jpeg(image: bytes) -> str | None:
    for marker, start in jpeg.segments(image):
        if marker in _JPEG_FRAMES:
            return _JPEG_FRAMES[marker]
        if marker in _OTHER_JPEG_FRAMES:
            bits = image[start] if start < len(image) else _JPEG_BITS
            return None if bits == _JPEG_BITS else f"a JPEG with {bits} bits a channel"
    return None


def _strange_tiff(image: bytes) -> str | None:
    """Return the kind of a TIFF with readable tags that Pillow does not support."""
    tags = readable_tags(image)
    if _PHOTOMETRIC not in tags:
        return None
    bits = ", ".join(map(str, _numbers(tags, _BITS)))
    kind = tags[_PHOTOMETRIC].value
    return f"a TIFF with {bits} bits a channel and photometric interpretation {kind}"


def _reason(tags: _Tags) -> str | None:
    """Return the error of a kind of TIFF that is not read; None for other kinds."""
    compression = _numbers(tags, _COMPRESSION)[0]
    if compression not in _READ_COMPRESSIONS:
        return f"{_COMPRESSIONS.get(compression, f'compression {compression}')} compression"
    bits = _numbers(tags, _BITS)
    kind = _SAMPLE_KINDS.get(_numbers(tags, _SAMPLES)[0])
    if kind is not None:
        return f"{kind} samples of {bits[0]} bits"
    if odd := next((one for one in bits if one not in _READ_BITS), None):
        return f"{odd} bits a channel"
    if _numbers(tags, _PLANAR)[0] == 2 and bits[0] > 8:  # noqa: PLR2004 (Pillow reads 8 bits a plane)
        return "16 bits a channel in separate planes"
    return None


def _is_raw(image: bytes, tags: _Tags) -> bool:
    places = _numbers(tags, _PARTS, ())[:_MAX_PARTS]
    return _DNG in tags or any(
        _RAW_PHOTOMETRICS & {*_numbers(part, _PHOTOMETRIC, ())}
        or _RAW_COMPRESSIONS & {*_numbers(part, _COMPRESSION, ())}
        for part in (tags, *(readable_tags(image, place) for place in places))
    )


def _numbers(tags: _Tags, name: int, default: tuple[int, ...] = (1,)) -> tuple[int, ...]:
    """Return the values of a tag, or the default where the directory has none."""
    return (tags[name].values if name in tags else ()) or default

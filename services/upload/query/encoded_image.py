"""Decodes images that are sent as base64 text or as a data URL, in blocks."""

from __future__ import annotations

import asyncio
import binascii
import re
from typing import Final

from services.shared.errors import MalformedRequest
from services.upload.http.bodies import Body
from services.upload.query.limits import too_large

_BLOCK_BYTES: Final = 256 * 1024
_MAX_DATA_HEAD: Final = 256
"""Bytes of a data URL before its comma: a media type and its parameters."""

_DATA: Final = b"data:"
_BASE64: Final = b";base64"
_MARKS: Final = re.compile(
    rb"/9j/|iVBORw0KGgo|R0lGOD|UklGR|SUkqA|TU0AK|AAAA[A-Za-z0-9+/]{1,2}Z0eXB"
)
"""Base64 of the first bytes of JPEG, PNG, GIF, WebP, TIFF, and of HEIF and AVIF."""

_URL_SAFE: Final = bytes.maketrans(b"-_", b"+/")
_SPACE: Final = b" \t\r\n"

Buffer = bytes | bytearray | memoryview


def is_encoded(content: Buffer) -> bool:
    """Return whether bytes that should be an image are a data URL or the base64 of one."""
    head = bytes(content[:_MAX_DATA_HEAD])
    return head.startswith(_DATA) or _MARKS.match(head) is not None


async def decode_image(text: Buffer, body: Body, max_bytes: int) -> bytes:
    """Return the bytes of an image that is base64 text or a data URL.

    Decodes block by block, so that the event loop runs on, and counts the bytes.

    Raises:
        MalformedRequest: the text is neither.
        ImageTooLarge: the image has more bytes than allowed.
        Overloaded: bodies hold too many bytes; RateLimited where the caller's do.
    """
    image, rest, ended = bytearray(), b"", False
    for begin in range(_start(text), len(text), _BLOCK_BYTES):
        block = rest + bytes(text[begin : begin + _BLOCK_BYTES]).translate(_URL_SAFE, _SPACE)
        _require_not_ended(ended, block)
        whole = len(block) // 4 * 4
        _extend(image, block[:whole], body, max_bytes)
        rest, ended = block[whole:], block[:whole].endswith(b"=")
        await asyncio.sleep(0)
    _require_not_ended(ended, rest)
    _extend(image, rest + b"=" * (-len(rest) % 4), body, max_bytes)
    return bytes(image)


def _require_not_ended(ended: bool, more: bytes) -> None:  # noqa: FBT001 (an assertion's condition)
    """Raise MalformedRequest for text after the padding, which ends base64."""
    if ended and more:
        raise _not_base64()


def _extend(image: bytearray, block: bytes, body: Body, max_bytes: int) -> None:
    try:
        decoded = binascii.a2b_base64(block, strict_mode=True)
    except binascii.Error:
        raise _not_base64() from None
    body.add_bytes(len(decoded))
    image += decoded
    if len(image) > max_bytes:
        raise too_large(max_bytes)


def _start(text: Buffer) -> int:
    """Return where the base64 begins: at once, or after the head of a data URL."""
    head = bytes(text[:_MAX_DATA_HEAD])
    if not head.startswith(_DATA):
        return 0
    meta, comma, _ = head.partition(b",")
    if not comma or not meta.lower().endswith(_BASE64):
        message = "the data URL must be of the form data:image/jpeg;base64,..."
        raise MalformedRequest(message)
    return len(meta) + 1


def _not_base64() -> MalformedRequest:
    message = "the image is not base64: send its bytes as base64 text, or as a data URL"
    return MalformedRequest(message)

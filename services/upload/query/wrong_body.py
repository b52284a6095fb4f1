"""Recognises bodies that are no image, and says how to send one."""

from __future__ import annotations

import re
from typing import Final

from services.shared.errors import (
    MalformedRequest,
    SimileError,
    UnsupportedCoding,
    UnsupportedFormat,
)

HEAD_BYTES: Final = 512
"""Of a file, these first bytes are looked at."""

_MAX_TEXT: Final = 80
_MIN_PRINTABLE: Final = 16
"""A file of a known image format has another byte than printable ones among its first."""

_GZIP: Final = b"\x1f\x8b"
_ZIP: Final = b"PK\x03\x04"
_BOUNDARY: Final = b"--"
_DISPOSITION: Final = b"content-disposition"
_PNG: Final = b"\x89PNG"
_WHOLE_PNG: Final = b"\x89PNG\r\n\x1a\n"
_IMAGES: Final = (b"GIF8", b"RIFF", b"BM", b"II", b"MM")
_PRINTABLE: Final = re.compile(rb"[\t\r\n -~]+")
_ADDRESS: Final = re.compile(rb"https?://", re.IGNORECASE)
_HTML: Final = re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE)
_MARKUP: Final = b"<"
_URL_ENCODED: Final = re.compile(rb"[A-Za-z_\[\]]{1,40}=")
_WITH_CURL: Final = "with curl, -F image=@FILE or --data-binary @FILE"


def explanation(image: bytes | bytearray, media_type: str, *, in_form: bool) -> SimileError | None:
    """Return an error that says what the bytes are instead of an image; None where it is unknown.

    Args:
        image: the bytes that should be an image.
        media_type: the Content-Type of the request.
        in_form: the bytes were a field of a form.
    """
    head = bytes(image[:HEAD_BYTES])
    if head.startswith(_GZIP):
        return UnsupportedCoding("the image is compressed with gzip; send the bytes of the file")
    if head.startswith(_ZIP):
        return UnsupportedFormat("the bytes are a ZIP archive; send its images, each alone")
    if head.startswith(_PNG) and not head.startswith(_WHOLE_PNG):
        message = f"the PNG lost the ends of its lines; {_WITH_CURL} sends all bytes"
        return UnsupportedFormat(message)
    if not in_form and head.startswith(_BOUNDARY) and _DISPOSITION in head.lower():
        return _form_without_type(media_type)
    return _text(head, in_form=in_form) if _is_text(head) else None


def _form_without_type(media_type: str) -> MalformedRequest:
    return MalformedRequest(
        f"the body is a multipart form, but its Content-Type is {media_type[:_MAX_TEXT]!r}: set "
        "none yourself, so that your HTTP library sets multipart/form-data with the boundary"
    )


def _is_text(head: bytes) -> bool:
    start = head[:_MIN_PRINTABLE]
    return not head.startswith(_IMAGES) and _PRINTABLE.fullmatch(start) is not None


def _text(head: bytes, *, in_form: bool) -> SimileError | None:
    if _HTML.match(head):
        return UnsupportedFormat("the bytes are an HTML page, no image: is the address right?")
    if _ADDRESS.match(head):
        message = "the image is an address; send it as the parameter image_url"
        return UnsupportedFormat(message)
    if not in_form and _URL_ENCODED.match(head):
        message = (
            "the body is a URL-encoded form; send the bytes of the image, or a multipart form: "
            f"{_WITH_CURL}"
        )
        return UnsupportedFormat(message)
    if head.startswith(_MARKUP):
        return None
    shown = head[:_MAX_TEXT].decode("ascii", "replace").strip()
    return UnsupportedFormat(f"the image is the text {shown!r}; send the bytes: {_WITH_CURL}")

"""Reads a query that is a JSON object: its parameters, and its image as base64 or a data URL.

Parsing JSON can take 20 times the memory of its text. Therefore the text of a large image is taken
out of the body first, and only the small rest is parsed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from services.shared.errors import ImageTooLarge, MalformedRequest
from services.upload.query.form import IMAGE_FIELD

OVERHEAD_BYTES: Final = 512 * 1024
"""The size of an object besides its image: a vector of some thousand numbers, and a filter."""

_EXAMPLE: Final = '{"image": "<base64>", "k": 10}'
_IMAGE: Final = re.compile(rb'"image"\s*:\s*"([^"]*)"')
_ESCAPES: Final[Mapping[bytes, bytes]] = {b"\\n": b"", b"\\r": b"", b"\\/": b"/"}
_MAX_IMAGES: Final = 1000
_BACKSLASH: Final = b"\\"
_OBJECT: Final = re.compile(rb"\s*\{")
_ADDRESSES: Final = ("http://", "https://")


@dataclass(frozen=True, slots=True)
class JsonQuery:
    """Holds the members of an object.

    Attributes:
        image: the text of the image; empty without one.
        fields: the parameters, as texts.
    """

    image: bytes | memoryview
    fields: Mapping[str, str]


def is_json(content: bytes | bytearray) -> bool:
    """Return whether a body is a JSON object: no image begins with a brace."""
    return _OBJECT.match(content) is not None


def max_json_bytes(max_image_bytes: int) -> int:
    """Return how many bytes an object with the largest image has."""
    return (max_image_bytes + 2) // 3 * 4 + OVERHEAD_BYTES


def read_json_query(content: bytearray) -> JsonQuery:
    """Return the image and the parameters of an object.

    Raises MalformedRequest, saying what is wrong.
    """
    if len(content) <= OVERHEAD_BYTES:
        members = _parsed(bytes(content))
        image = _image(members.pop(IMAGE_FIELD, None))
        return JsonQuery(image, _fields(members))
    # A hostile body may hold any number of images; more than these can't be in a small rest.
    found = (match.span(1) for match in islice(_IMAGE.finditer(content), _MAX_IMAGES))
    start, end = max(found, key=lambda span: span[1] - span[0], default=(0, 0))
    if len(content) - (end - start) > OVERHEAD_BYTES:
        message = f"the JSON body has more than {OVERHEAD_BYTES} bytes besides its image"
        raise ImageTooLarge(message)
    members = _parsed(bytes(content[:start]) + bytes(content[end:]))
    if members.pop(IMAGE_FIELD, None) != "":
        message = f"the longest text of the JSON body is not its image; it looks like {_EXAMPLE}"
        raise MalformedRequest(message)
    return JsonQuery(_unescaped(memoryview(content)[start:end]), _fields(members))


def _unescaped(text: memoryview) -> bytes | memoryview:
    """Return the text without JSON's escapes, which some writers put before each slash."""
    raw = text.obj
    if not isinstance(raw, bytearray) or _BACKSLASH not in raw:
        return text
    plain = bytes(text)
    for escape, meant in _ESCAPES.items():
        plain = plain.replace(escape, meant)
    return plain


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        members = json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        message = "the JSON body is nested too deeply"
        raise MalformedRequest(message) from None
    except ValueError as error:
        message = f"the body is no JSON that can be read ({error}); it looks like {_EXAMPLE}"
        raise MalformedRequest(message) from error
    if not isinstance(members, dict):
        message = f"the JSON body is no object; it looks like {_EXAMPLE}"
        raise MalformedRequest(message)
    return members


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        message = "the JSON body has a member twice"
        raise MalformedRequest(message)
    return members


def _image(given: Any) -> bytes:  # noqa: ANN401 (any JSON)
    if given is None:
        return b""
    if not isinstance(given, str) or not given.isascii():
        message = "image must be a text: the bytes of the image in base64, or a data URL"
        raise MalformedRequest(message)
    if given.lower().startswith(_ADDRESSES):
        message = "image must be base64 or a data URL; send an address as image_url"
        raise MalformedRequest(message)
    return given.encode()


def _fields(members: Mapping[str, Any]) -> dict[str, str]:
    """Return the members as the texts that a form would have; null is as good as absent."""
    return {name: _text(name, value) for name, value in members.items() if value is not None}


def _text(name: str, value: Any) -> str:  # noqa: ANN401 (any JSON)
    if isinstance(value, str):
        return value
    if name == "box" and isinstance(value, list):
        return ",".join(json.dumps(side) for side in value)
    return json.dumps(value)

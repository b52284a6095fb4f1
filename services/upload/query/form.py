"""Reads multipart forms: images go to their takers, parameters into a mapping."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import BodyPartReader, hdrs, web
from aiohttp.http_exceptions import BadHttpMessage

from services.shared.errors import MalformedRequest
from services.upload.http.bodies import Body
from services.upload.query.parameters import is_parameter, max_field_bytes

IMAGE_FIELD: Final = "image"
ADDRESS_FIELD: Final = "image_url"
CHUNK_BYTES: Final = 64 * 1024
PLAIN_CODINGS: Final = frozenset({"", "identity"})

_MAX_FIELDS: Final = 8
_MAX_SHOWN: Final = 40
_PLAIN_TRANSFER: Final = frozenset({"", "7bit", "8bit", "binary"})
_BOUNDARY: Final = "boundary"

TakePart = Callable[[BodyPartReader], Awaitable[None]]
"""Reads one field of a form."""


def is_form(request: web.Request) -> bool:
    """Return True for a multipart body."""
    return request.content_type.startswith("multipart/")


async def read_form(
    request: web.Request, body: Body, takers: Mapping[str, TakePart]
) -> dict[str, str]:
    """Return the form's parameters; fields named in takers go to their functions instead.

    Raises MalformedRequest.
    """
    form = dict[str, str]()
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name is None:
                message = "a part of the form has no name, or is a form itself"
                raise MalformedRequest(message)
            _require_plain_part(part)
            taker = takers.get(part.name)
            if taker is not None:
                await taker(part)
            else:
                await _take_field(form, part.name, part, body)
    except (ValueError, RuntimeError, AssertionError, BadHttpMessage) as error:
        # aiohttp raises these errors on an invalid form.
        raise _unreadable(error) from error
    return form


async def read_part(part: BodyPartReader, body: Body, limit: int, too_long: Exception) -> bytes:
    """Return the bytes of a form's field. Raises too_long where there are more than limit."""
    content = bytearray()
    while chunk := await part.read_chunk(CHUNK_BYTES):
        body.add_bytes(len(chunk))
        content += chunk
        if len(content) > limit:
            raise too_long
    return bytes(content)


def require_once(again: bool, what: str, name: str, way_out: str = "") -> None:  # noqa: FBT001 (an assertion's condition)
    """Raise MalformedRequest for what is given twice."""
    if again:
        message = f"{what} {name[:_MAX_SHOWN]!r} is given twice{way_out}"
        raise MalformedRequest(message)


async def _take_field(form: dict[str, str], name: str, part: BodyPartReader, body: Body) -> None:
    require_once(name in form, "form field", name)
    _require_parameter(name, part)
    if len(form) == _MAX_FIELDS:
        message = f"the form has more than {_MAX_FIELDS} fields"
        raise MalformedRequest(message)
    limit = max_field_bytes(name)
    too_long = MalformedRequest(f"form field {name[:_MAX_SHOWN]!r} has more than {limit} bytes")
    form[name] = (await read_part(part, body, limit, too_long)).decode()


def _require_parameter(name: str, part: BodyPartReader) -> None:
    """Raise MalformedRequest for a file in a field of another name than that of images."""
    media_type = part.headers.get(hdrs.CONTENT_TYPE, "")
    is_file = part.filename is not None or media_type.startswith("image/")
    if is_file and not is_parameter(name):
        message = (
            f"the form field of an image is called {IMAGE_FIELD!r}, not {name[:_MAX_SHOWN]!r}: "
            f"curl -F {IMAGE_FIELD}=@FILE"
        )
        raise MalformedRequest(message)


def _require_plain_part(part: BodyPartReader) -> None:
    """Raise MalformedRequest for a part of a form that has a coding."""
    for name, plain in (
        (hdrs.CONTENT_ENCODING, PLAIN_CODINGS),
        (hdrs.CONTENT_TRANSFER_ENCODING, _PLAIN_TRANSFER),
    ):
        coding = part.headers.get(name, "")
        if coding.strip().lower() not in plain:
            message = f"a part of the form has {name}: {coding[:_MAX_SHOWN]!a}; send it as it is"
            raise MalformedRequest(message)


def _unreadable(error: Exception) -> MalformedRequest:
    if _BOUNDARY in str(error).lower():
        message = (
            f"the form can't be read: {error}; set no Content-Type yourself, so that your HTTP "
            "library sets it with the boundary of the form"
        )
        return MalformedRequest(message)
    return MalformedRequest(f"the form can't be read: {error}")

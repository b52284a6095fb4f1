"""Reads a query out of a request: its parameters, and its image within the limits."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import BadHttpMessage

from services.shared.errors import BodyTimeout, EmptyImage, ImageTooLarge, MalformedRequest

DEFAULT_K: Final = 10
MAX_K: Final = 100
_MAX_DISTANCE: Final = 2.0
_FIELD: Final = "image"
_MAX_FIELDS: Final = 8
_MAX_FIELD_BYTES: Final = 1024
_CHUNK_BYTES: Final = 64 * 1024

Fields = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a collection; collection None means the default one."""

    collection: str | None = None
    k: int = DEFAULT_K
    max_distance: float | None = None


def parse_question(fields: Fields) -> Question:
    """The parameters of a search. Raises MalformedRequest, naming the one that is wrong."""
    require_known(fields, {"collection", "k", "max_distance"})
    return Question(
        collection=fields.get("collection") or None,
        k=parse_int(fields, "k", default=DEFAULT_K, low=1, high=MAX_K),
        max_distance=_distance(fields),
    )


def require_known(fields: Fields, known: set[str]) -> None:
    """Raise MalformedRequest for a parameter that nobody reads: it may be a misspelt one."""
    unknown = sorted(fields.keys() - known)
    if unknown:
        names = ", ".join(sorted(known)) or "none"
        message = f"unknown parameter {unknown[0][:40]!r}; this address takes: {names}"
        raise MalformedRequest(message)


def parse_int(fields: Fields, name: str, *, default: int, low: int, high: int) -> int:
    """A whole number between low and high. Raises MalformedRequest."""
    text = fields.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and low <= int(text[:9]) <= high):
        message = f"{name} must be a whole number from {low} to {high}, not {text[:40]!r}"
        raise MalformedRequest(message)
    return int(text[:9])


def _distance(fields: Fields) -> float | None:
    text = fields.get("max_distance")
    if text is None:
        return None
    try:
        distance = float(text)
    except ValueError:
        distance = math.nan
    if not 0 <= distance <= _MAX_DISTANCE:
        message = f"max_distance must be a number from 0 to {_MAX_DISTANCE:g}, not {text[:40]!r}"
        raise MalformedRequest(message)
    return distance


async def read_image(
    request: web.Request, *, max_bytes: int, timeout_seconds: float
) -> tuple[bytes, Fields]:
    """The image, and the parameters of both query string and form (the query string wins).

    The image is the form field `image` of a multipart body, or else the body itself.
    Raises ImageTooLarge (before reading, where Content-Length tells), BodyTimeout,
    EmptyImage, MalformedRequest.
    """
    multipart = request.content_type.startswith("multipart/")
    overhead = _MAX_FIELDS * _MAX_FIELD_BYTES if multipart else 0
    if (request.content_length or 0) > max_bytes + overhead:
        raise _too_large(max_bytes)
    form: dict[str, str] = {}
    try:
        async with asyncio.timeout(timeout_seconds):
            if multipart:
                image, form = await _read_form(request, max_bytes)
            else:
                image = await _read_body(request, max_bytes)
    except TimeoutError:
        message = f"the body did not arrive within {timeout_seconds:g} s"
        raise BodyTimeout(message) from None
    if not image:
        message = f"send the image as the body, or as the form field {_FIELD!r}"
        raise EmptyImage(message)
    return image, {**form, **single_values(request)}


def single_values(request: web.Request) -> dict[str, str]:
    """The query string's parameters. Raises MalformedRequest for one given twice."""
    for name in request.query:
        if len(request.query.getall(name)) > 1:
            message = f"parameter {name[:40]!r} is given twice"
            raise MalformedRequest(message)
    return dict(request.query)


async def _read_body(request: web.Request, max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in request.content.iter_chunked(_CHUNK_BYTES):
        body += chunk
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(body)


async def _read_form(request: web.Request, max_bytes: int) -> tuple[bytes, dict[str, str]]:
    image, form = b"", dict[str, str]()
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name is None:
                message = "a part of the form has no name, or is a form itself"
                raise MalformedRequest(message)
            if part.name in form or (part.name == _FIELD and image):
                message = f"form field {part.name[:40]!r} is given twice"
                raise MalformedRequest(message)
            if len(form) == _MAX_FIELDS:
                message = f"the form has more than {_MAX_FIELDS} fields"
                raise MalformedRequest(message)
            if part.name == _FIELD:
                image = await _read_part(part, max_bytes, _too_large(max_bytes))
            else:
                too_long = MalformedRequest(f"form field {part.name[:40]!r} is too long")
                form[part.name] = (await _read_part(part, _MAX_FIELD_BYTES, too_long)).decode()
    except (ValueError, RuntimeError, AssertionError, BadHttpMessage) as error:
        # What aiohttp raises on a form that does not parse.
        message = f"the form can't be read: {error}"
        raise MalformedRequest(message) from error
    return image, form


async def _read_part(part: BodyPartReader, limit: int, too_long: Exception) -> bytes:
    content = bytearray()
    while chunk := await part.read_chunk(_CHUNK_BYTES):
        content += chunk
        if len(content) > limit:
            raise too_long
    return bytes(part.decode(bytes(content)))


def _too_large(max_bytes: int) -> ImageTooLarge:
    return ImageTooLarge(f"an image may have {max_bytes} bytes at most; send a smaller one")

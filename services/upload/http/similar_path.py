"""Finds the address that a caller may have meant by one that has nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Final

from aiohttp import web
from yarl import URL

_API: Final = "/v1"


async def similar_path(request: web.Request, path: str) -> str | None:
    """Return an address of this server that is like the path; None where none is."""
    for candidate in _variants(path):
        if await _exists(request, candidate):
            return candidate
    routes = sorted({resource.canonical for resource in request.app.router.resources()})
    alike = [route for route in routes if _last(route) == _last(path)] or routes
    near = difflib.get_close_matches(path, alike, n=1)
    return near[0] if near else None


def _variants(path: str) -> Iterator[str]:
    """Yield the path without a slash at its end, and with the prefix of the API."""
    bare = "/" + path.strip("/")
    yield bare
    yield f"{_API}{bare}"


async def _exists(request: web.Request, path: str) -> bool:
    """Return whether any method has a route at the path."""
    clone = request.clone(rel_url=URL.build(path=path))
    failure = (await request.app.router.resolve(clone)).http_exception
    return failure is None or isinstance(failure, web.HTTPMethodNotAllowed)


def _last(path: str) -> str:
    return path.rpartition("/")[2]

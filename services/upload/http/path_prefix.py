"""Lets Simile be behind a path of a proxy, such as https://tools.example/simile/.

A proxy may pass the path as it is or remove the prefix: both are answered. Routes, rights and
limits know paths without the prefix; answers name paths with it.
"""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web
from aiohttp.http import RawRequestMessage

from services.upload.security.header_checks import RequestFactory

_BARE: Final = web.RequestKey("bare_prefix", bool)
"""True of a request for the prefix without a slash after it."""


def without_prefix(factory: RequestFactory, prefix: str) -> RequestFactory:
    """Remove the prefix from the path of each request that has it, before it is routed."""
    if not prefix:
        return factory

    def made(message: RawRequestMessage, *rest: object) -> web.BaseRequest:
        path = message.url.raw_path
        if path != prefix and not path.startswith(f"{prefix}/"):
            return factory(message, *rest)
        inner = path.removeprefix(prefix) or "/"
        url = message.url.with_path(inner, encoded=True, keep_query=True)
        request = factory(message._replace(path=url.raw_path_qs, url=url), *rest)
        request[_BARE] = path == prefix
        return request

    return made


def page_redirect(request: web.Request, prefix: str) -> web.Response | None:
    """Return the redirect of a page's address that lacks the slash, else None.

    Without the slash the page's relative addresses would lead out of the prefix.
    """
    if not request.get(_BARE, False):
        return None
    given = request.rel_url.raw_query_string
    query = f"?{given}" if given else ""
    return web.Response(status=308, headers={hdrs.LOCATION: f"{prefix}/{query}"})

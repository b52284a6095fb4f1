"""A reverse proxy on loopback that offers a service under a path, as ingresses do."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
from aiohttp import hdrs, web

_HOP: Final = frozenset({hdrs.CONNECTION, hdrs.KEEP_ALIVE, hdrs.TRANSFER_ENCODING})
"""Headers of one connection, which a proxy does not pass on."""


@contextlib.asynccontextmanager
async def reverse_proxy(target: str, prefix: str, *, strip: bool) -> AsyncIterator[str]:
    """Yield the URL under which the service at `target` is offered, with a slash at its end.

    Paths outside the prefix are answered with 404. strip: the service gets paths without it.
    """
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        async def forward(request: web.Request) -> web.Response:
            path = request.rel_url.raw_path_qs
            if strip:
                path = path.removeprefix(prefix) or "/"
            headers = {name: value for name, value in request.headers.items() if name not in _HOP}
            body = await request.read()
            async with session.request(
                request.method, target + path, headers=headers, data=body, allow_redirects=False
            ) as answer:
                kept = [(name, value) for name, value in answer.headers.items()
                        if name not in _HOP | {hdrs.CONTENT_LENGTH}]  # fmt: skip
                made = web.Response(status=answer.status, body=await answer.read())
                made.headers.clear()
                made.headers.extend(kept)
                return made

        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", prefix, forward)
        app.router.add_route("*", f"{prefix}/{{rest:.*}}", forward)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}{prefix}/"
        await runner.cleanup()

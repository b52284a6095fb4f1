"""A small client of the HTTP API, for the command line."""

from __future__ import annotations

import io
from typing import Any

import aiohttp

from services.shared.errors import Unreachable, from_code


async def search(url: str, image: bytes, *, collection: str | None, k: int) -> dict[str, Any]:
    """The answer of POST /v1/search as it came.

    Raises the error that the problem body names, or Unreachable.
    """
    params = {"k": str(k)} | ({"collection": collection} if collection else {})
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"{url.rstrip('/')}/v1/search", params=params, data=io.BytesIO(image)
            ) as answer,
        ):
            body: dict[str, Any] = await answer.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        message = f"no Simile answers at {url} ({error}): is `simile up` running there?"
        raise Unreachable(message) from error
    if not answer.ok:
        raise from_code(str(body.get("code")), str(body.get("detail")))
    return body

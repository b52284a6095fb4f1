"""Sends a first query to `simile up`, which is ready when it was answered."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Final

import aiohttp
from PIL import Image

from services.clients.api import key_headers
from services.shared.errors import InvalidSettings

_POLL_SECONDS: Final = 0.25
_LATE_SECONDS: Final = 10.0
_NO_ENTRY: Final = frozenset({401, 403})


_KEY_WANTED: Final = (
    "`simile up` sends a first query before it reports ready: set SIMILE_API_KEY "
    "to a key of SIMILE_UPLOAD_API_KEYS_FILE with the scope read"
)


def require_key(keys_file: Path | None) -> None:
    """Raise InvalidSettings where upload will require an API key, and none is set."""
    if keys_file is not None and not key_headers():
        raise InvalidSettings(_KEY_WANTED)


async def until_reachable(url: str) -> None:
    """Wait until a server answers HTTP at the URL."""
    async with aiohttp.ClientSession() as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(f"{url}/", ssl=False):
                    return
            await asyncio.sleep(_POLL_SECONDS)


async def until_answered(
    url: str,
    collection: str,
    on_late: Callable[[str], None],
    *,
    late_seconds: float = _LATE_SECONDS,
) -> None:
    """Wait until a search of the collection is answered with neighbours.

    Args:
        url: the base URL of upload.
        collection: the collection to search.
        on_late: gets the last refusal once, when there is no answer in time.
        late_seconds: after how long `on_late` is called.

    Raises:
        InvalidSettings: the server requires an API key, which is not set.
    """
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), (120, 160, 200)).save(picture, "PNG")
    loop = asyncio.get_running_loop()
    late: float | None = loop.time() + late_seconds
    async with aiohttp.ClientSession(headers=key_headers()) as session:
        while True:
            refusal = await _ask(session, url, collection, picture.getvalue())
            if refusal is None:
                return
            if late is not None and loop.time() >= late:
                on_late(refusal)
                late = None
            await asyncio.sleep(_POLL_SECONDS)


async def _ask(
    session: aiohttp.ClientSession, url: str, collection: str, picture: bytes
) -> str | None:
    """Send the query once; return None when it was answered, or the reason of the refusal."""
    try:
        async with session.post(
            f"{url}/v1/search",
            params={"collection": collection},
            data=picture,
            ssl=False,  # the certificate may not name this address of the same machine
        ) as answer:
            if answer.ok:
                return None
            if answer.status in _NO_ENTRY:
                raise InvalidSettings(_KEY_WANTED)
            body = await answer.json(content_type=None)
            return f"{body.get('detail')} ({body.get('code')})"
    except (aiohttp.ClientError, TimeoutError, ValueError, AttributeError) as error:
        return str(error) or type(error).__name__

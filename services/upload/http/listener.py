"""Opens the HTTP port, and closes it without dropping a request."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

from aiohttp import web

from services.shared.listening import UPLOAD_PORT, base_url, open_site
from services.upload.http.server import TimedRunner
from services.upload.settings import UploadSettings

_ACCEPT_SECONDS: Final = 0.001
_FIRST_HEAD_SECONDS: Final = 0.5
_LOOK_SECONDS: Final = 0.01


class Listener:
    """The HTTP port of an upload replica, from its first request to its last."""

    def __init__(
        self,
        runner: TimedRunner,
        settings: UploadSettings,
        tls: ssl.SSLContext | None,
        *,
        first_head_seconds: float = _FIRST_HEAD_SECONDS,
    ) -> None:
        """Create a closed port.

        Args:
            runner: serves the connections.
            settings: hold the address.
            tls: the certificate, for HTTPS.
            first_head_seconds: the time for a new connection to send its first head after `leave`.
        """
        self._runner = runner
        self._settings = settings
        self._site: web.BaseSite | None = None
        self._tls = tls
        self._first_head_seconds = first_head_seconds

    @property
    def open(self) -> bool:
        """Return True while callers can connect."""
        return self._site is not None

    async def start(self) -> str:
        """Begin to listen; return the base URL."""
        settings = self._settings
        await self._runner.setup()
        self._site = await open_site(
            self._runner, settings.host, settings.port, UPLOAD_PORT, ssl_context=self._tls
        )
        port = self._runner.addresses[0][1]
        return base_url("https" if self._tls else "http", settings.host, port)

    async def leave(self) -> None:
        """Stop listening after the last callers have sent their request's headers.

        Load balancers notice a pod's end some seconds after the pod itself: until then
        connections are accepted as before. A connection that the kernel has accepted, and this
        process has not, would be reset when the port is closed; a connection whose request is
        still on its way would be closed unanswered.
        """
        await asyncio.sleep(self._settings.lame_duck_seconds)
        # The event loop accepts waiting connections.
        await asyncio.sleep(_ACCEPT_SECONDS)
        await asyncio.sleep(0)
        if self._site is not None:
            await self._site.stop()
            self._site = None
        loop = asyncio.get_running_loop()
        latest = loop.time() + self._first_head_seconds
        while self._runner.without_request and loop.time() < latest:  # noqa: ASYNC110 (aiohttp has no event)
            await asyncio.sleep(_LOOK_SECONDS)

    async def close(self) -> None:
        """Close all connections."""
        await self._runner.cleanup()

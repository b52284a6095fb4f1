"""Serves HTTP, and bounds the time in which a request's headers must arrive.

aiohttp allows an hour for the headers. A caller could hold many connections by sending almost
nothing on each (slowloris).
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Final

import aiohttp
import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from services.shared.errors import HeadTooLarge, Internal, MalformedRequest, SimileError
from services.upload.http.path_prefix import without_prefix
from services.upload.http.problems import problem
from services.upload.http.security_headers import SECURITY, SERVER
from services.upload.search.queries import new_query_id
from services.upload.security.header_checks import hide_headers

_log = structlog.get_logger(__name__)

_MAX_LINE_BYTES: Final = 32 * 1024
"""A query string may contain a filter and a cursor, percent-encoded; a proxy for sign-in may set
cookies of more than 8 KiB."""

_MAX_HEAD_BYTES: Final = 64 * 1024
"""All headers of a request together."""

_MAX_HEADERS: Final = 64
"""A browser sends 20, and proxies add some."""


_NO_HTTP: Final = b"\0"
_TOO_MANY: Final = "Too many headers"
_TOO_LARGE: Final = (
    f"the request's address and headers are too long: each may have {_MAX_LINE_BYTES} bytes, all "
    f"of them {_MAX_HEAD_BYTES}; delete the cookies of this site, or send long parameters in a form"
)

_HANDLER_ATTRIBUTES: Final = ("_loop", "_request_count", "_waiter")
_SERVER_ATTRIBUTES: Final = ("_kwargs",)


def require_private_attributes(handler: object, server: object) -> None:
    """Check that this version of aiohttp has the private attributes that are used here.

    Raises:
        Internal: an attribute is missing, so that requests could not be timed.
    """
    wanted = [(handler, name) for name in _HANDLER_ATTRIBUTES]
    wanted += [(server, name) for name in _SERVER_ATTRIBUTES]
    missing = [name for owner, name in wanted if not hasattr(owner, name)]
    if missing:
        message = (
            f"aiohttp {aiohttp.__version__} has no {', '.join(missing)}: install a version that "
            "pyproject.toml allows"
        )
        raise Internal(message)


class _TimedHandler(RequestHandler):
    """Handles one connection, and closes it when headers do not arrive in time.

    The time runs from the connection's start, and later from the first byte after an answer, so
    that a proxy may keep idle connections for as long as it likes.
    """

    __slots__ = ("_head_bytes", "_timer", "header_timeout_seconds")

    header_timeout_seconds: float
    _timer: asyncio.TimerHandle | None
    _head_bytes: int

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._begin()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._end()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # A finished waiter is kept for a head that has arrived: more data is the body.
        heads, idle = self._request_count, self._waiter is not None and not self._waiter.done()
        super().data_received(data)
        if self._request_count > heads:
            self._end()
        elif idle and self._timer is None:
            self._begin()
        if self._timer is not None:
            self._head_bytes += len(data)
            if self._head_too_large:
                # The parser refuses the byte, so that the connection ends with an answer.
                super().data_received(_NO_HTTP)
                self._end()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer invalid HTTP with a problem, and with a log line instead of a traceback."""
        query_id = new_query_id()
        error: SimileError = MalformedRequest("this is not a valid HTTP request")
        if isinstance(exc, LineTooLong) or _TOO_MANY in str(exc) or self._head_too_large:
            error = HeadTooLarge(_TOO_LARGE)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            super().handle_error(request, status, exc, message)  # logs the traceback
            error = Internal("the request failed; the log says why")
        else:
            _log.info("no HTTP", action=error.code, correlation_id=query_id, remote=request.remote)
        answer = problem(error, query_id)
        answer.headers.update({**SECURITY, **SERVER, "X-Correlation-Id": query_id})
        answer.force_close()
        return answer

    def log_exception(self, *args: object, **options: object) -> None:
        """Log exceptions, except for malformed bodies, which are answered."""
        if not isinstance(options.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **options)

    @property
    def _head_too_large(self) -> bool:
        return self._head_bytes > _MAX_HEAD_BYTES

    def _begin(self) -> None:
        self._head_bytes = 0
        self._timer = self._loop.call_later(self.header_timeout_seconds, self._give_up)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        self.force_close()


class _TimedServer(web.Server):
    """Creates a timed handler for each connection."""

    header_timeout_seconds = 0.0

    def __call__(self) -> RequestHandler:
        handler = _TimedHandler(self, loop=self._loop, **self._kwargs)
        handler.header_timeout_seconds = self.header_timeout_seconds
        return handler


class TimedRunner(web.AppRunner):
    """Runs an application on timed connections."""

    __slots__ = ("_header_timeout_seconds", "_path_prefix")

    def __init__(
        self,
        app: web.Application,
        *,
        header_timeout_seconds: float,
        shutdown_timeout_seconds: float,
        path_prefix: str = "",
    ) -> None:
        super().__init__(
            app,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=shutdown_timeout_seconds,
            max_line_size=_MAX_LINE_BYTES,
            max_field_size=_MAX_LINE_BYTES,
            max_headers=_MAX_HEADERS,
            auto_decompress=False,  # images are compressed; small bodies must not grow
        )
        self._header_timeout_seconds = header_timeout_seconds
        self._path_prefix = path_prefix

    @property
    def without_request(self) -> int:
        """Return the number of connections on which no request has arrived yet."""
        connections = self.server.connections if self.server is not None else []
        return sum(one._request_count == 0 for one in connections)  # noqa: SLF001 (no other way)

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        require_private_attributes(RequestHandler(made, loop=asyncio.get_running_loop()), made)
        server = _TimedServer(
            made.request_handler,
            request_factory=without_prefix(hide_headers(made.request_factory), self._path_prefix),
            handler_cancellation=made.handler_cancellation,
            **made._kwargs,  # noqa: SLF001 (what the application gave it)
        )
        server.header_timeout_seconds = self._header_timeout_seconds
        return server

"""Opens the sockets of HTTP servers: IPv4, IPv6 or both, with a reason where that fails."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Final

from aiohttp import web

from services.shared.errors import InvalidSettings

_BACKLOG: Final = 128
_EVERY_ADDRESS: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 (compared, not bound)
_BOTH_FAMILIES: Final = frozenset({"", "::"})
_UNPRIVILEGED: Final = 1024


UPLOAD_PORT: Final = "SIMILE_UPLOAD_PORT"
ADMIN_PORT: Final = "SIMILE_ADMIN_PORT"
_OPTIONS: Final = {
    UPLOAD_PORT: "`simile up --port`, `make run PORT=`",
    ADMIN_PORT: "`simile up --admin-port`",
}


async def open_site(
    runner: web.BaseRunner,
    host: str,
    port: int,
    setting: str,
    *,
    ssl_context: ssl.SSLContext | None = None,
) -> web.BaseSite:
    """Listen for the runner, which is set up.

    Args:
        runner: the server.
        host: an address or a name of this machine; `::` listens on IPv4, too.
        port: the TCP port; 0 takes a free one.
        setting: the variable that the port comes from.
        ssl_context: the certificate, where the server speaks HTTPS.

    Raises:
        InvalidSettings: the port is taken, or the machine has no such address.
    """
    site: web.BaseSite
    try:
        if host in _BOTH_FAMILIES and socket.has_dualstack_ipv6():
            both = socket.create_server(
                ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG
            )
            site = web.SockSite(runner, both, ssl_context=ssl_context)
        else:
            site = web.TCPSite(runner, host or None, port, ssl_context=ssl_context)
        await site.start()
    except OSError as error:
        raise InvalidSettings(_reason(error, host, port, setting)) from None
    return site


def _reason(error: OSError, host: str, port: int, setting: str) -> str:
    option = f" ({_OPTIONS[setting]})" if setting in _OPTIONS else ""
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} is taken: another process listens on it already. Stop that one, or set "
            f"{setting}{option} to another port; 0 takes a free one"
        )
    if error.errno == errno.EACCES:
        return f"port {port} is for root alone: set {setting}{option} to one from {_UNPRIVILEGED}"
    name = "SIMILE_UPLOAD_HOST" if setting == UPLOAD_PORT else "SIMILE_ADMIN_HOST"
    return f"{name} is {host!r}, where this machine can't listen: {error.strerror or error}"


def base_url(scheme: str, host: str, port: int) -> str:
    """Return the URL by which this machine reaches what listens there; IPv6 in brackets."""
    shown = "127.0.0.1" if host in _EVERY_ADDRESS else host
    if host == "::" and not socket.has_dualstack_ipv6():
        shown = "::1"
    return f"{scheme}://[{shown}]:{port}" if ":" in shown else f"{scheme}://{shown}:{port}"


def is_free(host: str, port: int) -> bool:
    """Return whether the port is free."""
    try:
        _bound(host, port).close()
    except OSError:
        return False
    return True


def require_free(host: str, port: int, setting: str) -> None:
    """Raise InvalidSettings, as `open_site` does, where nothing could listen on that port now."""
    try:
        _bound(host, port).close()
    except OSError as error:
        raise InvalidSettings(_reason(error, host, port, setting)) from None


def free_port(host: str) -> int:
    """Return a free port of that address."""
    with _bound(host, 0) as listening:
        port: int = listening.getsockname()[1]
    return port


def _bound(host: str, port: int) -> socket.socket:
    both = host in _BOTH_FAMILIES and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
    address = ("::" if both else host, port)
    return socket.create_server(address, family=family, dualstack_ipv6=both)

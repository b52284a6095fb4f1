"""The settings of a connection that both clients share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import httpx

from simile_client.errors import Unreachable
from simile_client.exchange import Retries
from simile_client.version import __version__

DEFAULT_URL: Final = "http://127.0.0.1:8080"
DEADLINE_SECONDS: Final = 60.0

_MAX_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class Connection:
    """The address of a Simile, and how it is asked.

    Attributes:
        url: the address, with a path prefix where there is one.
        api_key: the key; None where none is needed.
        deadline_seconds: the time limit of a call, with all its attempts.
        retries: how often and when a request is repeated.
    """

    url: str = DEFAULT_URL
    api_key: str | None = field(default=None, repr=False)
    deadline_seconds: float = DEADLINE_SECONDS
    retries: Retries = field(default_factory=Retries)

    def __post_init__(self) -> None:
        """Raise Unreachable for a text that is no URL."""
        if "://" not in self.url:
            message = f"{self.url!r} is no URL: write http://{self.url}"
            raise Unreachable(message)
        try:
            address = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            message = f"{self.url!r} is no URL: {error}"
            raise Unreachable(message) from error
        if not address.host or not 0 < (address.port or 1) <= _MAX_PORT:
            message = f"{self.url!r} has no host, or a port above {_MAX_PORT}"
            raise Unreachable(message)

    def address(self, path: str) -> str:
        """Return the address of a path."""
        return f"{self.url.rstrip('/')}{path}"

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every request."""
        key = {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"}
        agent = f"simile-client/{__version__}"
        return {"User-Agent": agent, "Accept-Encoding": "gzip", **key}

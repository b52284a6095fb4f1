"""Describes the target of a load, and generates its requests."""

from __future__ import annotations

import itertools
import random
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

_SEED: Final = 20180501
_PORTS: Final = {"http": 80, "https": 443}
_JPEG: Final = b"\xff\xd8"
_COMMENT: Final = b"\xff\xfe"
_NUMBER: Final = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class Address:
    """Holds the address of a server."""

    host: str
    port: int
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """Describes the target of a load.

    Attributes:
        url: scheme://host:port; a path in it (an ingress's prefix) goes before `path`.
        bodies: the images.
        path: of the route.
        headers: of every request.
        unique: change each body's bytes, so that no cache helps.
    """

    url: str
    bodies: Sequence[bytes]
    path: str = "/v1/search"
    headers: Mapping[str, str] = field(default_factory=dict)
    unique: bool = True

    @property
    def address(self) -> Address:
        """Host and port, by default the port of the scheme."""
        parts = urlsplit(self.url)
        port = parts.port or _PORTS.get(parts.scheme, _PORTS["http"])
        return Address(parts.hostname or "127.0.0.1", port, tls=parts.scheme == "https")

    def requests(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield heads and bodies endlessly, in a fixed shuffled order."""
        head = self._head()
        order = list(range(len(self.bodies)))
        shuffler = random.Random(_SEED)  # noqa: S311 (an order, not a secret)
        # Starts at the present time, so that the next run sends other bytes.
        numbers = itertools.count(time.time_ns())
        while True:
            shuffler.shuffle(order)
            for chosen in order:
                body = self.bodies[chosen]
                if self.unique:
                    body = varied(body, next(numbers))
                yield b"%b%d\r\n\r\n" % (head, len(body)), body

    def _head(self) -> bytes:
        """Return the request's head up to the body's length, which ends it."""
        parts = urlsplit(self.url)
        lines = [
            f"POST {parts.path.rstrip('/')}{self.path} HTTP/1.1",
            f"Host: {parts.netloc.rpartition('@')[2]}",
            "Content-Type: application/octet-stream",
            *(f"{name}: {value}" for name, value in self.headers.items()),
            "Content-Length: ",
        ]
        return "\r\n".join(lines).encode("latin-1")


def varied(image: bytes, number: int) -> bytes:
    """Return other bytes that decode to the same pixels.

    A JPEG gets a comment with the number; any other format gets it after its end.
    """
    counted = _NUMBER.pack(number)
    if image.startswith(_JPEG):
        length = struct.pack(">H", 2 + len(counted))
        return b"".join((_JPEG, _COMMENT, length, counted, image[2:]))
    return image + counted

"""What is asked, and where: an address, a path, and image after image."""

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
    """Where a server listens."""

    host: str
    port: int
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """Where to post what. unique: no two bodies have the same bytes, so that no cache flatters.

    url: scheme://host:port; a path in it (an ingress's prefix) goes before `path`.
    """

    url: str
    bodies: Sequence[bytes]
    path: str = "/v1/search"
    headers: Mapping[str, str] = field(default_factory=dict)
    unique: bool = True

    @property
    def address(self) -> Address:
        """Host and port; those of the scheme where the URL names none."""
        parts = urlsplit(self.url)
        port = parts.port or _PORTS.get(parts.scheme, _PORTS["http"])
        return Address(parts.hostname or "127.0.0.1", port, tls=parts.scheme == "https")

    def requests(self) -> Iterator[tuple[bytes, bytes]]:
        """Heads and bodies for ever, in a shuffled order that is always the same."""
        head = self._head()
        order = list(range(len(self.bodies)))
        shuffler = random.Random(_SEED)  # noqa: S311 (an order, not a secret)
        # The time, since the next run must not send the bytes of this one.
        numbers = itertools.count(time.time_ns())
        while True:
            shuffler.shuffle(order)
            for chosen in order:
                body = self.bodies[chosen]
                if self.unique:
                    body = varied(body, next(numbers))
                yield b"%b%d\r\n\r\n" % (head, len(body)), body

    def _head(self) -> bytes:
        """The request's head up to the body's length, which ends it."""
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

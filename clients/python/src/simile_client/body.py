"""Receives the content of an answer piece by piece, within limits of time and bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import httpx

from simile_client.errors import UnexpectedAnswer

MAX_ANSWER_BYTES: Final = 256 * 2**20
"""The bytes of an answer at most, after decompression."""

_CODINGS: Final = frozenset({"", "identity", "gzip"})
_ENCODED: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})
"""Headers that describe the content as it was sent."""


class Body:
    """Collects the pieces of an answer's content."""

    def __init__(
        self,
        response: httpx.Response,
        left_seconds: float,
        max_bytes: int = MAX_ANSWER_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Check the headers of an answer.

        Args:
            response: the answer, of which only the headers have arrived.
            left_seconds: the time until the call's deadline.
            max_bytes: the bytes of the content at most, after decompression.
            clock: returns the time in seconds.

        Raises:
            UnexpectedAnswer: the content has a coding that was not asked for. Several codings on
                top of each other could make gigabytes of a single piece.
        """
        coding = response.headers.get("Content-Encoding", "").strip().lower()
        if coding not in _CODINGS:
            message = f"{response.url} answers in the coding {coding!r}, which was not asked for"
            raise UnexpectedAnswer(message)
        self._response = response
        self._max_bytes = max_bytes
        self._clock = clock
        self._give_up = clock() + left_seconds
        self._pieces = list[bytes]()
        self._size = 0

    def add(self, piece: bytes) -> None:
        """Add the next piece.

        Raises:
            TimeoutError: the deadline has passed.
            UnexpectedAnswer: the answer has too many bytes.
        """
        self._size += len(piece)
        if self._size > self._max_bytes:
            message = f"{self._response.url} answers with more than {self._max_bytes} bytes"
            raise UnexpectedAnswer(message)
        if self._clock() > self._give_up:
            message = "the answer did not end before the deadline"
            raise TimeoutError(message)
        self._pieces.append(piece)

    def whole(self) -> httpx.Response:
        """Return the answer with its content, decompressed."""
        response = self._response
        headers = [one for one in response.headers.multi_items() if one[0] not in _ENCODED]
        content = b"".join(self._pieces)
        return httpx.Response(
            response.status_code, headers=headers, content=content, request=response.request
        )

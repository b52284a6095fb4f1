"""Provides streams for tests of uploads."""

from __future__ import annotations

import io
from typing import Any


class Unseekable(io.RawIOBase):
    """A stream that can be read once, as a pipe."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        """Reads are possible."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes."""
        return self._content.readinto(buffer)

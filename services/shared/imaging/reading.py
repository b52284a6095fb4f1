"""Reads numbers out of bytes: big-endian fields of a fixed width, and single bits."""

from __future__ import annotations

import struct
from typing import Final

_FORMATS: Final = {1: ">B", 2: ">H", 4: ">I", 8: ">Q"}
_MAX_PREFIX_BITS: Final = 32


class Fields:
    """Big-endian numbers, one after the other, out of a part of some bytes."""

    def __init__(self, data: bytes, start: int = 0, end: int | None = None) -> None:
        """Begin at `start`; nothing is read at `end` or beyond."""
        self._data = data
        self.place = start
        self.end = len(data) if end is None else end

    @property
    def left(self) -> int:
        """The number of bytes that are still unread."""
        return self.end - self.place

    def number(self, width: int) -> int:
        """Read a number of 0, 1, 2, 4 or 8 bytes; 0 bytes make 0. Raises struct.error."""
        if width == 0:
            return 0
        start = self._forward(width)
        (value,) = struct.unpack_from(_FORMATS[width], self._data, start)
        return int(value)

    def raw(self, width: int) -> bytes:
        """Read so many bytes. Raises struct.error where there are fewer."""
        start = self._forward(width)
        return self._data[start : start + width]

    def skip(self, width: int) -> None:
        """Pass over so many bytes. Raises struct.error where there are fewer."""
        self._forward(width)

    def _forward(self, width: int) -> int:
        start = self.place
        if width > self.left:
            message = "a field ends outside its box"
            raise struct.error(message)
        self.place += width
        return start


class Bits:
    """Single bits and variable-length numbers out of a video header."""

    def __init__(self, data: bytes) -> None:
        """Begin with the highest bit of the first byte."""
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def number(self, width: int) -> int:
        """Read a number of so many bits. Raises struct.error where there are fewer."""
        if width > self._left:
            message = "a video header is cut short"
            raise struct.error(message)
        self._left -= width
        return (self._value >> self._left) & ((1 << width) - 1)

    def golomb(self) -> int:
        """Read an unsigned Exp-Golomb number, as in H.265's ue(v) and AV1's uvlc()."""
        zeros = 0
        while not self.number(1):
            zeros += 1
            if zeros > _MAX_PREFIX_BITS:
                message = "a number in a video header is too long"
                raise struct.error(message)
        return (1 << zeros) - 1 + self.number(zeros)

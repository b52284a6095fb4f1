"""Memory for what was made before: the most recently used, up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

_Value = TypeVar("_Value")


class Memory(Generic[_Value]):
    """Values by key, the least recently used forgotten first."""

    def __init__(self, max_bytes: int, size: Callable[[_Value], int]) -> None:
        """size: what a value counts as, in bytes."""
        self._max_bytes = max_bytes
        self._size = size
        self._kept: OrderedDict[object, _Value] = OrderedDict()
        self.held_bytes = 0

    def get(self, key: object) -> _Value | None:
        """The value, which is now the last to be forgotten."""
        value = self._kept.get(key)
        if value is not None:
            self._kept.move_to_end(key)
        return value

    def put(self, key: object, value: _Value) -> None:
        """Keep it; what is larger than all of the memory is not kept."""
        self.drop(key)
        if self._size(value) > self._max_bytes:
            return
        self._kept[key] = value
        self.held_bytes += self._size(value)
        while self.held_bytes > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self.held_bytes -= self._size(oldest)

    def drop(self, key: object) -> None:
        """Forget it, if it is there."""
        value = self._kept.pop(key, None)
        if value is not None:
            self.held_bytes -= self._size(value)

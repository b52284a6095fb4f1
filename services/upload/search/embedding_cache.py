"""Remembers the vectors of images that were asked by: the same bytes need no embedder again."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter

from services.shared.contracts import Box
from services.upload.search.lru import Memory

_SMALL_BYTES: Final = 2**20
_OVERHEAD_BYTES: Final = 500
"""What the objects around a vector take."""


@dataclass(frozen=True, slots=True)
class Vector:
    """One vector to search by, float32 little-endian bytes of `dimension` values."""

    model_id: str
    dimension: int
    raw: bytes


class EmbeddingMemory:
    """Vectors by what they were made of: an image's bytes, and the part of it."""

    def __init__(self, max_bytes: int, results: Counter) -> None:
        """0 turns it off. results: counts hits, misses, and stale entries."""
        self._hits, self._misses, self._stale = (
            results.labels(result=result) for result in ("hit", "miss", "stale")
        )
        self._memory = Memory[Vector](max_bytes, lambda vector: len(vector.raw) + _OVERHEAD_BYTES)
        self.on = max_bytes > 0

    @property
    def held_bytes(self) -> int:
        """What it holds now."""
        return self._memory.held_bytes

    async def key(self, image: bytes, box: Box | None) -> Hashable:
        """What the vector is known by; hashes a large image in a thread."""
        if len(image) <= _SMALL_BYTES:
            return _sha256(image), box
        return await asyncio.to_thread(_sha256, image), box

    def get(self, key: Hashable) -> Vector | None:
        """The vector, if it is known."""
        vector = self._memory.get(key)
        (self._misses if vector is None else self._hits).inc()
        return vector

    def put(self, key: Hashable, vector: Vector) -> None:
        """Remember it."""
        self._memory.put(key, vector)

    def drop(self, key: Hashable) -> None:
        """Forget it: it is of a model that isn't searched by any more."""
        self._stale.inc()
        self._memory.drop(key)


def _sha256(image: bytes) -> bytes:
    return hashlib.sha256(image).digest()

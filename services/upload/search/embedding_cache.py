"""Caches the vectors of query images: the same bytes need no embedder again."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache
from prometheus_client import Counter

from services.shared.contracts import Box

_SMALL_BYTES: Final = 2**20
_OVERHEAD_BYTES: Final = 500
"""Estimated size of the objects that hold a vector, and of its key."""


@dataclass(frozen=True, slots=True)
class Vector:
    """Holds a query vector: `dimension` float32 values, little-endian."""

    model_id: str
    dimension: int
    raw: bytes


class EmbeddingCache:
    """Holds vectors by image content and box; evicts the least recently used first."""

    def __init__(self, max_bytes: int, results: Counter) -> None:
        """Create an empty cache.

        Args:
            max_bytes: size limit of all vectors together; 0 turns the cache off.
            results: counts hits, misses, and stale entries.
        """
        self._hits, self._misses, self._stale = (
            results.labels(result=result) for result in ("hit", "miss", "stale")
        )
        self._vectors = LRUCache[Hashable, Vector](
            max_bytes, lambda vector: len(vector.raw) + _OVERHEAD_BYTES
        )
        self.on = max_bytes > 0

    @property
    def held_bytes(self) -> int:
        """Return the size of all cached vectors."""
        return int(self._vectors.currsize)

    async def key(self, image: bytes, box: Box | None) -> Hashable:
        """Return the cache key of an image; hashes a large image in a thread."""
        if len(image) <= _SMALL_BYTES:
            return _sha256(image), box
        return await asyncio.to_thread(_sha256, image), box

    def get(self, key: Hashable) -> Vector | None:
        """Return the cached vector, or None, and count a hit or a miss."""
        vector = self._vectors.get(key)
        (self._misses if vector is None else self._hits).inc()
        return vector

    def put(self, key: Hashable, vector: Vector) -> None:
        """Store a vector, unless it is larger than the whole cache."""
        with contextlib.suppress(ValueError):  # the value is larger than the cache
            self._vectors[key] = vector

    def drop(self, key: Hashable) -> None:
        """Remove a vector whose model differs from that of the index."""
        self._stale.inc()
        self._vectors.pop(key, None)


def _sha256(image: bytes) -> bytes:
    return hashlib.sha256(image).digest()

"""Chooses the image of an upload canary: always the same item for a replica and version."""

from __future__ import annotations

import hashlib
from typing import Final

from services.shared.canary import Known
from services.shared.contracts import Embedding, Embeddings, EmbedRequest
from services.shared.imaging import Limits
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker
from services.shared.messaging.request_reply import Inbox
from services.shared.volume.items import Item
from services.upload.collections import CollectionReader
from services.upload.search.embedding_cache import Vector

_CANDIDATES: Final = 8
_LOOPBACK_SECONDS: Final = 2.0


class CanaryChoice:
    """Chooses from the most recently queried collection, so that a canary opens none."""

    def __init__(self, collections: CollectionReader, replica: str, limits: Limits) -> None:
        """Take the limits of callers: builds accept larger images than the embedders."""
        self._collections = collections
        self._replica = replica
        self._limits = limits

    async def choose(self) -> Known | None:
        """Return a query by an item's image; by its vector if no image is available."""
        opened = await self._collections.recent()
        if opened is None:
            return None
        manifest = opened.manifest
        names = (f"{self._replica} {manifest.version} {n}" for n in range(_CANDIDATES))
        positions = sorted({_drawn(name, manifest.count) for name in names})
        items = await self._collections.items_at(opened, positions)
        # The smallest first: a canary should be cheap.
        items = sorted(items, key=lambda item: item.width * item.height)
        for item in items:
            image = await self._collections.images.original(manifest, item)
            is_small = item.width * item.height <= self._limits.max_pixels
            if image is not None and is_small and len(image) <= self._limits.max_bytes:
                return _by_image(manifest.collection, item, image)
        vector = await self._collections.vector(opened, items[0])
        return _by_vector(manifest.collection, items[0], vector)


class ReplyPathCheck:
    """Judges a failed canary by the reply path, the only part that this replica owns.

    Readiness selects among replicas. Failures of embedders or searchers affect all replicas
    alike: if all were unready, callers would get the plain error of an ingress instead of a 503
    with its reason and Retry-After.
    """

    def __init__(
        self, broker: Broker, inbox: Inbox, *, timeout_seconds: float = _LOOPBACK_SECONDS
    ) -> None:
        """Create the check; timeout_seconds: the maximum for a message to this replica."""
        self._broker = broker
        self._inbox = inbox
        self._timeout_seconds = timeout_seconds

    async def judge(self, code: str) -> bool | None:
        """Return True if the canary was answered, or a message to this replica arrives.

        Returns None while the broker is known to be away: another check reports that, and
        withdraws it immediately when the broker is back.
        """
        if code == "ok":
            return True
        arrived = await self._inbox.loopback_ok(self._timeout_seconds)
        return arrived if arrived or self._broker.ready else None


def _drawn(name: str, count: int) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % count


def _by_image(collection: str, item: Item, image: bytes) -> Known:
    return Known(
        asked_by="image",
        collection=collection,
        item_id=item.item_id,
        queue=topology.EMBED.name,
        reply_to=topology.SEARCH.name,
        message=lambda slip: EmbedRequest(slip, image),
    )


def _by_vector(collection: str, item: Item, vector: Vector) -> Known:
    return Known(
        asked_by="vector",
        collection=collection,
        item_id=item.item_id,
        queue=topology.SEARCH.name,
        reply_to=topology.SEARCH.name,
        message=lambda slip: Embeddings(
            vector.model_id, vector.dimension, (Embedding(slip, vector.raw),)
        ),
    )

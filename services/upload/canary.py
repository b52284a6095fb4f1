"""What upload's canary asks by: an item's own image, the same one for a replica and version."""

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
from services.upload.collections import Library
from services.upload.search.embedding_cache import Vector

_CANDIDATES: Final = 8
_ECHO_SECONDS: Final = 2.0


class CanaryChoice:
    """Chooses from the collection that was asked for last, so that none is opened for a canary."""

    def __init__(self, library: Library, replica: str, limits: Limits) -> None:
        """Take the limits of callers: a build lets in larger images than the embedders accept."""
        self._library = library
        self._replica = replica
        self._limits = limits

    async def choose(self) -> Known | None:
        """An item's image through the embedders; where no image is to be had, its vector."""
        shelf = await self._library.recent()
        if shelf is None:
            return None
        manifest = shelf.manifest
        names = (f"{self._replica} {manifest.version} {n}" for n in range(_CANDIDATES))
        positions = sorted({_drawn(name, manifest.count) for name in names})
        items = await self._library.items_at(shelf, positions)
        # The smallest first: a canary should cost next to nothing.
        items = sorted(items, key=lambda item: item.width * item.height)
        for item in items:
            image = await self._library.images.original(manifest, item)
            is_small = item.width * item.height <= self._limits.max_pixels
            if image is not None and is_small and len(image) <= self._limits.max_bytes:
                return _by_image(manifest.collection, item, image)
        vector = await self._library.vector(shelf, items[0])
        return _by_vector(manifest.collection, items[0], vector)


class OwnHalf:
    """Judges a canary by this replica's own half of the path.

    Readiness decides between replicas. Where embedders or searchers are at fault, each replica is
    as good as the next: unready, all of them, they would leave callers with the bare error of an
    ingress, instead of a 503 that says why and when to come again.
    """

    def __init__(self, broker: Broker, inbox: Inbox) -> None:
        self._broker = broker
        self._inbox = inbox

    async def judge(self, code: str) -> bool | None:
        """Well when it was answered, or else when a message to itself is.

        None while the broker is known to be away: another check says so, and takes it back at once.
        """
        if code == "ok":
            return True
        heard = await self._inbox.hears_itself(_ECHO_SECONDS)
        return heard if heard or self._broker.ready else None


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

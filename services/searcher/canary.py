"""The searcher's canary: a stored vector through the queue and back, to find itself."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Final

import numpy as np

from services.searcher.catalog import Catalog
from services.searcher.index.finder import Finder
from services.shared.canary import Known
from services.shared.contracts import Embedding, Embeddings
from services.shared.errors import DeadlineExceeded, Internal, InvalidVector, WrongAnswer
from services.shared.messaging import topology

_AGAINST_SEARCHERS: Final = {
    error.code for error in (DeadlineExceeded, Internal, InvalidVector, WrongAnswer)
}
"""The rest is said by another check already, or is no fault: a full queue, a changing index."""


class CanaryChoice:
    """Chooses from the collection that was asked for last, so that none is opened for a canary."""

    def __init__(self, catalog: Catalog, replica: str) -> None:
        self._catalog = catalog
        self._replica = replica

    async def choose(self) -> Known | None:
        """A vector of the index that is open here, the same for this replica and version."""
        finder = self._catalog.recent
        return None if finder is None else await asyncio.to_thread(self._known, finder)

    def _known(self, finder: Finder) -> Known:
        manifest = finder.index.manifest
        name = f"{self._replica} {manifest.version}".encode()
        position = int.from_bytes(hashlib.sha256(name).digest()[:8]) % manifest.count
        (item,) = finder.index.items.at([position])
        vector = np.array(finder.index.engine.vectors[position], "<f4").tobytes()
        return Known(
            asked_by="vector",
            collection=manifest.collection,
            item_id=item.item_id,
            queue=topology.SEARCH.name,
            reply_to=topology.SEARCH.name,
            message=lambda slip: Embeddings(
                manifest.model_id, manifest.dimension, (Embedding(slip, vector),)
            ),
        )


async def judge(code: str) -> bool | None:
    """Well when it was answered; not well when nobody answers, or not rightly.

    Any searcher may have taken it, but to be unready costs a searcher nothing: queries come by
    the queue, to whoever takes them. It holds up a rollout, and shows.
    """
    if code == "ok":
        return True
    return False if code in _AGAINST_SEARCHERS else None

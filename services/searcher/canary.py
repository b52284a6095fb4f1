"""Sends the searcher's canaries: a stored vector through the queue must find its own item."""

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
"""Other codes are reported by other checks, or are no fault: a full queue, a changed index."""


class CanaryChoice:
    """Chooses from the collection that was queried last, so that a canary opens none."""

    def __init__(self, catalog: Catalog, replica: str) -> None:
        self._catalog = catalog
        self._replica = replica

    async def choose(self) -> Known | None:
        """Return a vector of the open index, always the same for this replica and version."""
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
    """Return True for an answer, False for none or a wrong one, None for any other failure.

    Another searcher may have failed to answer. An unready searcher still gets queries from the
    queue, but stops a rollout, and operators see it.
    """
    if code == "ok":
        return True
    return False if code in _AGAINST_SEARCHERS else None

"""Runs all services in this event loop, with a broker and a model that the test provides."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.embedder import service as embedder
from services.embedder.models.model import Model
from services.embedder.settings import EmbedderSettings
from services.searcher import service as searcher
from services.searcher.settings import SearcherSettings
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry
from services.shared.telemetry.tracing import NoTracing, Tracing
from services.shared.volume.volume import Volume
from services.upload import app as upload
from services.upload.settings import UploadSettings
from tests.support.volume import items, publish_version

_ITEMS = 40


@dataclass(frozen=True, slots=True)
class System:
    """Holds the URL of upload, and the telemetry that the services share."""

    url: str
    telemetry: Telemetry


@contextlib.asynccontextmanager
async def system(
    root: Path, broker: Broker, model: Model, tracing: Tracing | None = None
) -> AsyncIterator[System]:
    """Run upload, an embedder with one worker, and a searcher of the collection `colours`."""
    vectors = np.abs(np.random.default_rng(5).normal(size=(_ITEMS, model.dimension)))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("<f4")
    publish_version(
        Volume(root), "colours", vectors, items(_ITEMS), model_id=model.model_id, method="reduced"
    )
    telemetry, stop = Telemetry(tracing=tracing or NoTracing()), asyncio.Event()
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    shared = SharedSettings(root=root, replica="system", drain_timeout_seconds=10)
    settings = UploadSettings(port=0, deadline_seconds=30, embedding_cache_bytes=0)
    await broker.start(topology.ALL)
    running = [
        asyncio.create_task(work)
        for work in (
            upload.run(
                settings, shared, broker, stop=stop, telemetry=telemetry, started=started
            ),
            embedder.run_with(
                lambda *_: [model], EmbedderSettings(), shared, broker,
                stop=stop, telemetry=telemetry,
            ),
            searcher.run(SearcherSettings(), shared, broker, stop=stop, telemetry=telemetry),
        )
    ]  # fmt: skip
    try:
        url = await started
        async with asyncio.timeout(30):
            while telemetry.health.not_ready():
                await asyncio.sleep(0.01)
        yield System(url, telemetry)
    finally:
        stop.set()
        await asyncio.gather(*running)
        await broker.close()

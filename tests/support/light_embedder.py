"""Runs an embedder process without a network: its vectors are thumbnails; the rest is real.

Start it by `python -m tests.support.light_embedder` with the embedder's settings. Two variables
add to these: LIGHT_MODEL_SECONDS is the model's time for one image, LIGHT_CLOCK_SECONDS the number
of seconds by which the process's clock is ahead.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from services.embedder.models.model import Model, Pixels, Preprocessing, RuntimeInfo, Vectors
from services.embedder.service import run_with
from services.embedder.settings import EmbedderSettings
from services.shared.contracts import Box
from services.shared.imaging import Limits, Probe
from services.shared.messaging.broker import Broker
from services.shared.process import run_service
from services.shared.settings import SharedSettings, load
from services.shared.telemetry import Telemetry

SIDE = 12
SECONDS = "LIGHT_MODEL_SECONDS"
CLOCK = "LIGHT_CLOCK_SECONDS"


@dataclass(frozen=True)
class LightModel:
    """Computes thumbnails of 12 x 12 pixels, minus their mean."""

    limits: Limits
    seconds: float = 0.0
    model_id: str = f"light@000000000000/thumbnail/{3 * SIDE * SIDE}"
    dimension: int = 3 * SIDE * SIDE
    input_size: int = SIDE
    batch_limit: int = 4
    chunk_images: int = 4
    runtime: RuntimeInfo = field(default_factory=lambda: RuntimeInfo("light", "fp32", "cpu"))

    def prepare(
        self, image: bytes, box: Box | None = None, *, known: Probe | None = None
    ) -> Pixels:
        """Decode the image with the real decoder."""
        return Preprocessing(resize=SIDE, crop=SIDE).prepare(image, self.limits, box, known=known)

    def embed(self, batch: Pixels) -> Vectors:
        """Compute vectors; equal pixels give equal vectors in any batch."""
        time.sleep(self.seconds * len(batch))
        rows = batch.reshape(len(batch), -1).astype(np.float32)
        # A constant keeps the vector of an image of one colour from having length 0.
        vectors: Vectors = rows - rows.mean(axis=1, keepdims=True) + np.float32(0.01)
        return vectors


def main() -> None:
    """Read the settings and run until a signal."""
    settings, shared = load(EmbedderSettings), load(SharedSettings)
    seconds = float(os.environ.get(SECONDS, "0"))

    ahead_ns = round(1e9 * float(os.environ.get(CLOCK, "0")))
    true_ns = time.time_ns
    time.time_ns = lambda: true_ns() + ahead_ns

    def light(_: EmbedderSettings, limits: Limits) -> Sequence[Model]:
        return [LightModel(limits, seconds)]

    async def run_here(broker: Broker, stop: asyncio.Event, telemetry: Telemetry) -> None:
        await run_with(light, settings, shared, broker, stop=stop, telemetry=telemetry)

    run_service("embedder", shared, run_here)


if __name__ == "__main__":
    main()

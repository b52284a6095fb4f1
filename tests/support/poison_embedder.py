"""Runs an embedder process that is killed by an image whose bytes end in POISON.

Start it by `python -m tests.support.poison_embedder` with the embedder's settings. Everything but
its model is real.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import Final

from services.embedder.models.model import Model, Pixels
from services.embedder.service import run_with
from services.embedder.settings import EmbedderSettings
from services.shared.contracts import Box
from services.shared.imaging import Probe
from services.shared.messaging.broker import Broker
from services.shared.process import run_service
from services.shared.settings import SharedSettings, load
from services.shared.telemetry import Telemetry
from tests.support.fake_model import FakeModel

POISON: Final = b"POISON"
ANTIDOTE: Final = "ANTIDOTE"
"""The environment variable that makes poisoned images harmless."""


class Poisonable(FakeModel):
    """Kills its process on a poisoned image, as a segmentation fault would."""

    def prepare(
        self, image: bytes, box: Box | None = None, *, known: Probe | None = None
    ) -> Pixels:
        """Decode the image with the real decoder."""
        if image.endswith(POISON) and ANTIDOTE not in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().prepare(image, box, known=known)


def main() -> None:
    """Read the settings and run until a signal."""
    settings, shared = load(EmbedderSettings), load(SharedSettings)

    def poisonable(*_: object) -> Sequence[Model]:
        return [Poisonable()]

    async def run(broker: Broker, stop: asyncio.Event, telemetry: Telemetry) -> None:
        await run_with(poisonable, settings, shared, broker, stop=stop, telemetry=telemetry)

    run_service("embedder", shared, run)


if __name__ == "__main__":
    main()

"""Provides a model without a network: its vectors are mean colours; tests can block or break it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from services.embedder.models.model import Pixels, Preprocessing, RuntimeInfo, Vectors
from services.shared.contracts import Box
from services.shared.imaging import Limits, Probe
from tests.support.pictures import Color

LIMITS: Final = Limits(max_bytes=2**20, max_pixels=1_000_000, max_aspect=100.0)
RED: Final[Color] = (250, 0, 0)
GREEN: Final[Color] = (0, 250, 0)
BLUE: Final[Color] = (0, 0, 250)
BLACK: Final[Color] = (0, 0, 0)
"""The colour whose vector has length 0 in the fake model."""
WHITE: Final[Color] = (255, 255, 255)
"""The colour for which the fake model raises an error."""


@dataclass
class FakeModel:
    """Records the sizes of its batches; while `gate` is cleared, every batch waits in the model."""

    batches: list[int] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    model_id: str = "fake@0/mean/3"
    dimension: int = 3
    input_size: int = 8
    batch_limit: int = 4
    chunk_images: int = 4
    runtime: RuntimeInfo = field(default_factory=lambda: RuntimeInfo("fake", "fp32", "cpu"))

    def __post_init__(self) -> None:
        self.gate.set()

    def prepare(
        self, image: bytes, box: Box | None = None, *, known: Probe | None = None
    ) -> Pixels:
        """Decode the image with the real decoder."""
        return Preprocessing(resize=8, crop=8).prepare(image, LIMITS, box, known=known)

    def embed(self, batch: Pixels) -> Vectors:
        """Return mean colours; raise for a batch with a white image."""
        self.batches.append(len(batch))
        self.entered.release()
        assert self.gate.wait(30), "the test never opened the gate"
        means = batch.astype(np.float32).mean(axis=(1, 2))
        if (means.min(axis=1) > 250).any():
            message = "no network likes white"
            raise ValueError(message)
        return np.where(means < 25, np.float32(0), means)

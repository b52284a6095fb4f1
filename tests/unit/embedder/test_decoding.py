"""The decoder by itself, where threads meet in an order that a running embedder rarely has."""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from services.embedder.decoding import Decoder, GivenUp, Piece
from services.embedder.job import Job
from services.embedder.metrics import EmbedderMetrics
from services.embedder.models.model import Pixels
from services.shared import imaging
from services.shared.contracts import Box
from services.shared.imaging import Header, Limits
from services.shared.telemetry.watchdog import Watchdog
from tests.support.jobs import job
from tests.support.pictures import plain_jpeg

LIMITS: Final = Limits(max_bytes=2**20, max_pixels=10**6, max_aspect=100.0)


SLOW: Final = plain_jpeg((9, 9, 9), (32, 32))
LARGE: Final = plain_jpeg((9, 9, 9), (64, 64))


def _taken(decoder: Decoder, one: Job) -> Piece:
    decoder.put(one)
    with decoder.lock:
        return decoder.take(None)


def test_what_is_given_up_does_not_wait_for_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is answered while its header is looked at: to queue it would answer it twice."""
    entered, leave = threading.Event(), threading.Event()

    def prepare(image: bytes, box: Box | None) -> Pixels:
        del box
        entered.set()
        assert image != LARGE or leave.wait(30)
        return np.zeros((8, 8, 3), np.uint8)

    metrics, watchdog = EmbedderMetrics(CollectorRegistry()), Watchdog("decode")
    decoder = Decoder(prepare, LIMITS, metrics, watchdog, input_size=8, timeout_seconds=0.0)
    slow = _taken(decoder, job("slow", SLOW))
    large = _taken(decoder, job("large", LARGE))
    large.began = math.inf  # never late

    def memory_of(header: Header, _target: int | None) -> float:
        if header.width == 32:
            assert decoder.late() == [slow]
            decoder.give_up(slow, most=1)
        return math.inf

    monkeypatch.setattr(imaging, "memory_of", memory_of)
    with ThreadPoolExecutor(1) as thread:
        decoded = thread.submit(decoder.decode, large)
        assert entered.wait(30)
        try:
            with pytest.raises(GivenUp):
                decoder.decode(slow)
        finally:
            leave.set()
        assert decoded.result(30) is not None
    assert decoder.take_back() == []

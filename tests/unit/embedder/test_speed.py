"""The choice of a runtime stores measured speeds, and ignores noise."""

from __future__ import annotations

import functools
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from services.embedder.models import speed
from services.embedder.models.exported import Exported, Facts
from services.embedder.models.model import Pixels, RuntimeInfo, Vectors
from services.embedder.models.speed import Speed
from tests.support.clock import Clock

_PIXELS = np.zeros((8, 4, 4, 3), np.uint8)


@dataclass
class _Timed:
    """Takes a fixed time for each call and each image."""

    clock: Clock
    call_seconds: float
    image_seconds: float
    batches: list[int] = field(default_factory=list)
    info: RuntimeInfo = field(default_factory=lambda: RuntimeInfo("timed", "fp32", "cpu"))

    def embed(self, batch: Pixels) -> Vectors:
        """Advance the clock by the time of the batch."""
        self.batches.append(len(batch))
        self.clock.now += self.call_seconds + self.image_seconds * len(batch)
        return np.ones((len(batch), 3), np.float32)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock that measures speeds."""
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


def _exported(folder: Path) -> Exported:
    return Exported(folder, Facts(1, "some weights", "some@model/x/3", 3, "0" * 64, "2"))


def test_a_batch_is_as_small_as_it_can_be_without_loss(clock: Clock) -> None:
    """A single image is the best batch where larger ones gain nothing."""
    alone = speed.measure(_Timed(clock, 0.0, 0.01), _PIXELS)
    assert alone.chunk_images == 1
    assert alone.images_per_second == pytest.approx(100)
    together = speed.measure(_Timed(clock, 0.01, 0.01), _PIXELS)
    assert together.chunk_images == 16
    assert together.images_per_second == pytest.approx(16 / 0.17)


def test_a_slow_network_is_not_measured_for_minutes(clock: Clock) -> None:
    """Larger batches are not tried once a call takes as long as a measurement."""
    slow = _Timed(clock, 0.0, 0.2)
    found = speed.measure(slow, _PIXELS)
    assert max(slow.batches) == 4
    assert found.images_per_second == pytest.approx(5)


def test_noise_does_not_change_the_runtime() -> None:
    """The preferred runtime stays unless another is faster by more than noise."""
    assert speed.fastest({"one": Speed(100, 1), "two": Speed(104, 1)}) == "one"
    assert speed.fastest({"one": Speed(100, 1), "two": Speed(110, 1)}) == "two"
    assert (
        speed.fastest({"one": Speed(60, 1), "two": Speed(100, 1), "three": Speed(90, 1)}) == "two"
    )


def test_a_speed_is_measured_once_for_a_library_and_a_precision(tmp_path: Path) -> None:
    """The speed of each precision is stored beside the export."""
    network, calls = _exported(tmp_path), list[str]()

    def measured(name: str) -> Speed:
        calls.append(name)
        return Speed(50.0, 4)

    for _ in range(2):
        for precision in ("fp32", "bf16"):
            known = speed.known(network, "numpy", precision, functools.partial(measured, precision))
            assert known == Speed(50.0, 4)
    assert calls == ["fp32", "bf16"]


@pytest.mark.parametrize("kept", ["", "[]", '{"numpy": 3}', '{"a": {"speed": 1}}'])
def test_damaged_speeds_are_measured_again(tmp_path: Path, kept: str) -> None:
    """A damaged file of speeds is replaced by new measurements."""
    (tmp_path / "speeds.json").write_text(kept)
    network = _exported(tmp_path)
    assert speed.known(network, "numpy", "fp32", lambda: Speed(1.0, 1)) == Speed(1.0, 1)
    assert speed.known(network, "numpy", "fp32", lambda: Speed(2.0, 2)) == Speed(1.0, 1)


def test_speeds_that_cannot_be_kept_are_still_used(tmp_path: Path) -> None:
    """Each start measures when the exports are on a read-only volume."""
    network = _exported(tmp_path / "missing")
    assert speed.known(network, "numpy", "fp32", lambda: Speed(1.0, 1)) == Speed(1.0, 1)
    assert speed.known(network, "numpy", "fp32", lambda: Speed(2.0, 2)) == Speed(2.0, 2)


def test_speeds_of_earlier_versions_are_still_read(tmp_path: Path) -> None:
    """The keys of the file never change, so that a start after an update measures nothing again."""
    network = _exported(tmp_path)
    speed.known(network, "numpy", "fp32", lambda: Speed(1.0, 2))
    (stored,) = json.loads((tmp_path / "speeds.json").read_text()).values()
    assert stored == {"images_per_second": 1.0, "at_once": 2}

"""The choice of a runtime: what is measured, what is kept, what noise does not decide."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from services.embedder.models import speed
from services.embedder.models.exported import Exported, Facts
from services.embedder.models.model import Pixels, Runs, Vectors
from services.embedder.models.speed import Speed

_PIXELS = np.zeros((8, 4, 4, 3), np.uint8)


@dataclass
class _Clock:
    """Time that passes only in the runtime."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class _Timed:
    """A runtime whose calls take so long, and so much longer for each image."""

    clock: _Clock
    call_seconds: float
    image_seconds: float
    batches: list[int] = field(default_factory=list)
    runs: Runs = field(default_factory=lambda: Runs("timed", "fp32", "cpu"))

    def embed(self, batch: Pixels) -> Vectors:
        """Take the time."""
        self.batches.append(len(batch))
        self.clock.now += self.call_seconds + self.image_seconds * len(batch)
        return np.ones((len(batch), 3), np.float32)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    """The clock that speeds are measured by."""
    clock = _Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


def _exported(folder: Path) -> Exported:
    return Exported(folder, Facts(1, "some weights", "some@model/x/3", 3, "0" * 64, "2"))


def test_a_batch_is_as_small_as_it_can_be_without_loss(clock: _Clock) -> None:
    """Where larger batches gain nothing one image at a time is best; else what is near the best."""
    alone = speed.measure(_Timed(clock, 0.0, 0.01), _PIXELS)
    assert alone.at_once == 1
    assert alone.images_per_second == pytest.approx(100)
    together = speed.measure(_Timed(clock, 0.01, 0.01), _PIXELS)
    assert together.at_once == 16
    assert together.images_per_second == pytest.approx(16 / 0.17)


def test_a_slow_network_is_not_measured_for_minutes(clock: _Clock) -> None:
    """Once a call is as long as a measurement, larger batches aren't tried."""
    slow = _Timed(clock, 0.0, 0.2)
    found = speed.measure(slow, _PIXELS)
    assert max(slow.batches) == 4
    assert found.images_per_second == pytest.approx(5)


def test_noise_does_not_change_the_runtime() -> None:
    """The preferred one stays unless another is faster by more than measurements differ."""
    assert speed.fastest({"one": Speed(100, 1), "two": Speed(104, 1)}) == "one"
    assert speed.fastest({"one": Speed(100, 1), "two": Speed(110, 1)}) == "two"
    assert (
        speed.fastest({"one": Speed(60, 1), "two": Speed(100, 1), "three": Speed(90, 1)}) == "two"
    )


def test_a_speed_is_measured_once_for_a_library_and_a_precision(tmp_path: Path) -> None:
    """What was measured is kept beside the export, each precision by itself."""
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
def test_damaged_speeds_are_measured_anew(tmp_path: Path, kept: str) -> None:
    """A file that makes no sense is no reason not to start."""
    (tmp_path / "speeds.json").write_text(kept)
    network = _exported(tmp_path)
    assert speed.known(network, "numpy", "fp32", lambda: Speed(1.0, 1)) == Speed(1.0, 1)
    assert speed.known(network, "numpy", "fp32", lambda: Speed(2.0, 2)) == Speed(1.0, 1)


def test_speeds_that_cannot_be_kept_are_still_used(tmp_path: Path) -> None:
    """With the exports on a read-only volume each start measures."""
    network = _exported(tmp_path / "missing")
    assert speed.known(network, "numpy", "fp32", lambda: Speed(1.0, 1)) == Speed(1.0, 1)
    assert speed.known(network, "numpy", "fp32", lambda: Speed(2.0, 2)) == Speed(2.0, 2)

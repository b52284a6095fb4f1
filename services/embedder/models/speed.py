"""Measures which runtime is the fastest on this machine, in chunks of how many images."""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import structlog

from services.embedder.models.exported import Exported
from services.embedder.models.model import Pixels, Runtime
from services.shared.json_text import read_json

_log = structlog.get_logger(__name__)

_SIZES: Final = (1, 4, 16)
_SECONDS: Final = 0.3
_ENOUGH: Final = 0.97
_MARGIN: Final = 1.05


@dataclass(frozen=True, slots=True)
class Speed:
    """The speed of one thread of a runtime.

    Attributes:
        images_per_second: with `chunk_images` images in each call.
        chunk_images: the smallest number of images in a call that reaches this speed.
    """

    images_per_second: float
    chunk_images: int


def measure(runtime: Runtime, pixels: Pixels, sizes: Sequence[int] = _SIZES) -> Speed:
    """Measure the best speed, and the smallest batch within 3 % of it; takes about a second."""
    found: dict[int, float] = {}
    for size in sizes:
        batch = pixels[[index % len(pixels) for index in range(size)]]
        once = _seconds(runtime, batch)
        # A single call of a network this slow is long enough, and a larger batch is no faster.
        found[size] = size / (once if once > _SECONDS else _median_seconds(runtime, batch))
        if once > _SECONDS:
            break
    best = max(found.values())
    chunk_images = min(size for size, speed in found.items() if speed >= _ENOUGH * best)
    return Speed(best, chunk_images)


def fastest(speeds: Mapping[str, Speed]) -> str:
    """Return the fastest library; an earlier one stays unless the gain is more than noise."""
    names = list(speeds)
    chosen = names[0]
    for name in names[1:]:
        if speeds[name].images_per_second > _MARGIN * speeds[chosen].images_per_second:
            chosen = name
    return chosen


def known(exported: Exported, library: str, precision: str, measured: Callable[[], Speed]) -> Speed:
    """Return the speed that is stored beside the export, or measure and store it."""
    file = exported.folder / "speeds.json"
    key = f"{library} {_version(library)} {precision} {_processor()}"
    kept = _read(file)
    if key in kept:
        return kept[key]
    speed = measured()
    _log.info("runtime measured", action="runtime_measured", library=library,
              precision=precision, chunk_images=speed.chunk_images,
              images_per_second=round(speed.images_per_second, 1))  # fmt: skip
    _write(file, {**_read(file), key: speed})
    return speed


def _median_seconds(runtime: Runtime, batch: Pixels) -> float:
    taken: list[float] = []
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        taken.append(_seconds(runtime, batch))
    return statistics.median(taken)


def _seconds(runtime: Runtime, batch: Pixels) -> float:
    started = time.perf_counter()
    runtime.embed(batch)
    return time.perf_counter() - started


def _version(library: str) -> str:
    return metadata.version(library)


def _processor() -> str:
    """Return the processor's name: different machines may share the folder of exports."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def _read(file: Path) -> dict[str, Speed]:
    try:
        stored = read_json(file.read_text()).items()
        return {key: Speed(one["images_per_second"], one["at_once"]) for key, one in stored}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _stored(speed: Speed) -> Mapping[str, float]:
    """Return the fields of a speed as the file has them."""
    return {"images_per_second": speed.images_per_second, "at_once": speed.chunk_images}


def _write(file: Path, speeds: Mapping[str, Speed]) -> None:
    """Replace the file; without one, as on a read-only volume, each start measures."""
    try:
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as partial:
            json.dump({key: _stored(speed) for key, speed in speeds.items()}, partial, indent=2)
        Path(partial.name).replace(file)
    except OSError as error:
        _log.info("the speeds can't be stored", action="speeds_not_kept", why=str(error))

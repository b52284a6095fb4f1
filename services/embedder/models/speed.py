"""Which runtime is the fastest here, and with how many images at once: measured, then kept."""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
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
    """What one thread of a runtime reaches. at_once: the images a call at which it does."""

    images_per_second: float
    at_once: int


def measure(runtime: Runtime, pixels: Pixels, sizes: Sequence[int] = _SIZES) -> Speed:
    """The best speed, and the smallest batch that comes within 3 % of it; takes about a second."""
    found: dict[int, float] = {}
    for size in sizes:
        batch = pixels[[index % len(pixels) for index in range(size)]]
        once = _seconds(runtime, batch)
        # Of a network this slow a call is long enough, and a larger batch is no quicker.
        found[size] = size / (once if once > _SECONDS else _median_seconds(runtime, batch))
        if once > _SECONDS:
            break
    best = max(found.values())
    at_once = min(size for size, speed in found.items() if speed >= _ENOUGH * best)
    return Speed(best, at_once)


def fastest(speeds: Mapping[str, Speed]) -> str:
    """The fastest library; one named earlier is left only for a gain that is no mere noise."""
    names = list(speeds)
    chosen = names[0]
    for name in names[1:]:
        if speeds[name].images_per_second > _MARGIN * speeds[chosen].images_per_second:
            chosen = name
    return chosen


def known(exported: Exported, library: str, precision: str, measured: Callable[[], Speed]) -> Speed:
    """The speed as kept beside the export, else measured now and kept where that is possible."""
    file = exported.folder / "speeds.json"
    key = f"{library} {_version(library)} {precision} {_processor()}"
    kept = _read(file)
    if key in kept:
        return kept[key]
    speed = measured()
    _log.info("runtime measured", action="runtime_measured", library=library,
              precision=precision, at_once=speed.at_once,
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
    """The processor's name: exports may be on a volume that unlike machines share."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def _read(file: Path) -> dict[str, Speed]:
    try:
        return {key: Speed(**speed) for key, speed in read_json(file.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write(file: Path, speeds: Mapping[str, Speed]) -> None:
    """Replace the file; on a read-only volume it is measured at each start."""
    try:
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False) as partial:
            json.dump({key: asdict(speed) for key, speed in speeds.items()}, partial, indent=2)
        Path(partial.name).replace(file)
    except OSError as error:
        _log.info("speeds can't be kept", action="speeds_not_kept", why=str(error))

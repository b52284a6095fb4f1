"""What was measured, and where: the target's collection, and the machine of the generator."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import psutil

_GIBIBYTE: Final = 2**30


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one measurement; the target's are as they were before the first run.

    images, image_bytes: how many were sent in turn, and their mean size. seconds: of a run that
    isn't a step of the search for capacity. generator: its machine. begun: UTC, ISO 8601.
    """

    url: str
    collection: str
    model_id: str
    index_version: str
    count: int
    images: int
    image_bytes: int
    unique: bool
    seconds: float
    warmup_seconds: float
    generator: str
    simile_version: str
    begun: str

    def to_json(self) -> Mapping[str, Any]:
        """By name."""
        return asdict(self)


def machine() -> str:
    """Cores, processor, memory, system and Python of the generator's machine."""
    cores = os.cpu_count()
    memory = psutil.virtual_memory().total / _GIBIBYTE
    return (
        f"{cores} cores of {_processor()}, {memory:.0f} GiB, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}"
    )


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

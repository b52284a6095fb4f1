"""Describes a measurement: the target's collection and the generator's machine."""

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
    """Describes a measurement; the target's facts are from before the first run.

    Attributes:
        count: the items of the collection.
        images: how many images were sent in turn.
        image_bytes: their mean size.
        seconds: of a run outside the search for capacity.
        generator: the machine that sent the requests.
        begun: the start, in UTC and ISO 8601.
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
        """Return the facts by name."""
        return asdict(self)


def machine() -> str:
    """Describe this machine: cores, processor, memory, system and Python."""
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

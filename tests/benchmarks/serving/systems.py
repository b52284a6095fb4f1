"""Defines the compared systems: names, titles, and how each is started."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True)
class Bench:
    """The inputs of a system.

    index: the folder of the plain Annoy file. root: Simile's volume. images: the collection.
    logs: a folder of this start. probe: an image that must be answered.
    """

    index: Path
    root: Path
    images: Path
    logs: Path
    probe: bytes


@dataclass(frozen=True, slots=True)
class Running:
    """A system that answers.

    ready_seconds: from an embedder's start until it is ready. front: the process whose main
    thread takes requests, if known.
    """

    url: str
    path: str
    pids: Sequence[int]
    ready_seconds: float | None = None
    front: int | None = None


@dataclass(frozen=True, slots=True)
class System:
    """A way to serve.

    overloaded: also measure with too many clients. concurrencies: if given, only these are
    measured. longer: a factor of the duration, for slow answers that arrive in bursts.
    """

    name: str
    title: str
    family: str
    start: Callable[[Bench], AbstractContextManager[Running]]
    overloaded: bool = False
    concurrencies: Sequence[int] = ()
    longer: float = 1.0


SIMILE: Final = "simile-processes"
SIMILE_LOCAL: Final = "simile-one-process"
ONE_CORE: Final = "simile-embedder-on-1-core"
TWO_CORES: Final = "simile-embedders-on-2-cores"

FAMILIES: Final[Mapping[str, str]] = {
    "simile": "Simile",
    "micro-batcher": "micro-batcher by hand",
    "litserve": "LitServe",
    "bentoml": "BentoML",
    "ray": "Ray Serve",
    "ray-haproxy": "Ray Serve in its high-throughput mode",
    "2018": "the design of 2018",
}

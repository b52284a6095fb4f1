"""Builds an engine's index in a process of its own, whose memory is sampled from outside.

`python -m tests.benchmarks.building ENGINE FOLDER COUNT DIMENSION` is that process.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from services.searcher.index.scan import mapped
from services.shared.volume.manifest import VECTORS
from tests.benchmarks.datasets import CACHE, Dataset
from tests.benchmarks.engines import ENGINES, Opened, link
from tests.benchmarks.memory import Ran, run_sampled, status_bytes


@dataclass(frozen=True, slots=True)
class Built:
    """An index that was built and opened.

    seconds: without the start of Python. own_bytes: anonymous memory that opening it took; each
    process needs its own, while mapped files are shared.
    """

    opened: Opened
    seconds: float
    ran: Ran
    own_bytes: int


def build(engine: str, dataset: Dataset) -> Built:
    """Build the engine's index of the set, and open it in this process."""
    count, dimension = dataset.vectors.shape
    folder = _folder(dataset) / engine
    shutil.rmtree(folder, ignore_errors=True)
    vectors = link(dataset.matrix, count, dimension, folder)
    ran = run_sampled(__name__, engine, folder, count, dimension)
    before = status_bytes("RssAnon")
    opened = ENGINES[engine].open(vectors, folder)
    own_bytes = max(0, status_bytes("RssAnon") - before)
    return Built(opened, json.loads(ran.output)["seconds"], ran, own_bytes)


def forget(dataset: Dataset) -> None:
    """Remove the set's indexes; open ones stay readable until they are closed."""
    shutil.rmtree(_folder(dataset), ignore_errors=True)


def _folder(dataset: Dataset) -> Path:
    return CACHE / "indexes" / f"{dataset.spec.name}-{len(dataset.vectors)}"


def main(engine: str, folder: str, count: str, dimension: str) -> None:
    """Build in the child process, and print how long the build took."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    vectors = mapped(Path(folder) / VECTORS, int(count), int(dimension))
    started = time.perf_counter()
    ENGINES[engine].build(vectors, Path(folder))
    sys.stdout.write(json.dumps({"seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Measures a loop without a server: `python -m tests.benchmarks.serving.limit`.

Decode, model and search in single-threaded processes, an image at a time: the machine's limit.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.rivals import similarity
from tests.benchmarks.serving import corpus

_WARM_IMAGES = 20
_MAX_SECONDS = 300.0


def measure(processes: int, seconds: float, index: Path) -> dict[str, float]:
    """Return images per second, CPU ms per image, and the p50 ms of an image."""
    done = subprocess.run(
        [sys.executable, "-m", __spec__.name, str(processes), str(seconds), str(index)],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("processes", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("index", type=Path)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(options.processes), context.Queue()
    workers = [
        context.Process(
            target=_work, args=(number, options.seconds, options.index, barrier, results)
        )
        for number in range(options.processes)
    ]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=_MAX_SECONDS) for _ in workers]
    for worker in workers:
        worker.join()
    print(json.dumps(_figures(found)))  # noqa: T201 (to the parent)


def _work(
    number: int,
    seconds: float,
    index: Path,
    barrier: Barrier,
    results: Queue[tuple[list[float], float, float]],
) -> None:
    model = similarity.open_similarity("given", index)
    images = [path.read_bytes() for path in corpus.sent()][number::2]
    for image in images[:_WARM_IMAGES]:
        model.answer([image])
    taken: list[float] = []
    barrier.wait(_MAX_SECONDS)
    began, cpu_before = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        started = time.perf_counter()
        model.answer([images[len(taken) % len(images)]])
        taken.append(time.perf_counter() - started)
    results.put((taken, time.perf_counter() - began, time.process_time() - cpu_before))


def _figures(found: Sequence[tuple[list[float], float, float]]) -> dict[str, Any]:
    taken = [one for seconds, _, _ in found for one in seconds]
    return {
        "images_per_second": sum(len(seconds) / elapsed for seconds, elapsed, _ in found),
        "cpu_ms": 1000 * sum(cpu for _, _, cpu in found) / len(taken),
        "p50_ms": 1000 * float(np.median(taken)),
    }


if __name__ == "__main__":
    main()

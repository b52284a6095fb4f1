"""Generates the load in its own process: `python -m tests.benchmarks.serving.client`.

Reads a line of JSON for each point, and answers with a line of JSON; images are read once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from services.bench.load.load import Target, closed_loop
from services.bench.run import percentile
from tests.benchmarks.serving import corpus
from tests.benchmarks.serving.children import cpu_seconds, main_thread_seconds
from tests.benchmarks.serving.systems import Running

_TIMEOUT_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Point:
    """The parameters of a measurement. patient: refused clients wait for Retry-After."""

    concurrency: int
    seconds: float
    warmup_seconds: float
    patient: bool = True


class Client:
    """Controls the client's process through pipes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def measure(self, running: Running, point: Point) -> dict[str, Any]:
        """Measure a point; return its figures. Raises RuntimeError when the client has ended."""
        asked = {"point": asdict(point), "running": asdict(running)}
        if self._process.stdin is None or self._process.stdout is None:
            message = "the client has no pipes"
            raise RuntimeError(message)
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            message = f"the client ended with {self._process.wait()}"
            raise RuntimeError(message)
        figures: dict[str, Any] = json.loads(line)
        return figures


@contextlib.contextmanager
def client() -> Iterator[Client]:
    """Run a client's process."""
    process = subprocess.Popen(
        [sys.executable, "-m", __spec__.name],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield Client(process)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.wait()


def main() -> None:
    """Answer lines until the input ends."""
    bodies = [path.read_bytes() for path in corpus.sent()]
    for line in sys.stdin:
        asked = json.loads(line)
        running, point = Running(**asked["running"]), Point(**asked["point"])
        target = Target(url=running.url, path=running.path, bodies=bodies, unique=True)
        print(json.dumps(asyncio.run(_measured(target, running, point))), flush=True)  # noqa: T201


async def _measured(target: Target, running: Running, point: Point) -> dict[str, Any]:
    loading = closed_loop(
        target, concurrency=point.concurrency, seconds=point.seconds,
        warmup_seconds=point.warmup_seconds, patient=point.patient,
        timeout_seconds=_TIMEOUT_SECONDS,
    )  # fmt: skip
    run, (spent, front) = await asyncio.gather(loading, _cpu_seconds_of(running, point))
    codes = dict(run.by_code)
    served, refused = len(run.served), len(run.refused)
    return {
        "concurrency": point.concurrency,
        "seconds": run.seconds,
        "served": served,
        "refused": refused,
        "codes": codes,
        "goodput": run.goodput,
        "p50_ms": 1000 * run.percentile(50) if served else None,
        "p99_ms": 1000 * run.percentile(99) if served else None,
        "refusal_p99_ms": 1000 * percentile(run.refused, 99) if refused else None,
        "cpu_seconds": spent,
        "front_cpu_seconds": front,
        "client_cpu_ms": 1000 * run.client_cpu_seconds_per_request,
    }


async def _cpu_seconds_of(running: Running, point: Point) -> tuple[float, float | None]:
    """Return CPU seconds from the warm-up's end to the end: of all processes, of the front.

    Answers that arrive after the end are not counted, so neither is their CPU time.
    """
    await asyncio.sleep(point.warmup_seconds)
    before, front_before = await asyncio.to_thread(_cpu_seconds, running)
    await asyncio.sleep(point.seconds)
    after, front_after = await asyncio.to_thread(_cpu_seconds, running)
    return after - before, None if running.front is None else front_after - front_before


def _cpu_seconds(running: Running) -> tuple[float, float]:
    front = 0.0 if running.front is None else main_thread_seconds(running.front)
    return cpu_seconds(running.pids), front


if __name__ == "__main__":
    main()

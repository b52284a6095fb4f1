"""Measures the cost of metrics and logs: `python -m tests.benchmarks.telemetry`.

Runs the real services over RabbitMQ, with metrics and logs switched on and off in turns of a
few seconds, in the same processes: first with a model that computes nothing, then with the default
model. Writes telemetry.json and a section of benchmarks.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import psutil

from services.bench.load.load import Target, closed_loop
from services.shared.telemetry import tracing
from services.shared.telemetry.stopwatch import Stopwatch
from services.shared.telemetry.tracing import NoTracing
from services.shared.volume.volume import Volume
from tests.benchmarks import results, telemetry_report
from tests.benchmarks.display import Display, shown
from tests.benchmarks.messaging import DIMENSION, MODEL, cpu_seconds, is_broker
from tests.benchmarks.telemetry_switch import OFF, ON, STUB
from tests.support import pictures, running
from tests.support.rabbitmq import Node, running_node
from tests.support.running import Process
from tests.support.volume import items, publish_version, unit_vectors

_ROUNDS: Final = 16
_SECONDS: Final = 2.0
_WARM_SECONDS: Final = 2.0
_CONCURRENCY: Final = 8
_ITEMS: Final = 100
_CALLS: Final = 20_000

_Turn = Mapping[str, float]
"""CPU milliseconds per query, by process and in all."""


@dataclass(frozen=True, slots=True)
class _System:
    """The measured processes, and the front's address."""

    services: Mapping[str, Process]
    broker: psutil.Process
    url: str

    @property
    def measured(self) -> Mapping[str, psutil.Process]:
        """Return all processes but the client."""
        own = {name: psutil.Process(one.popen.pid) for name, one in self.services.items()}
        return {**own, "broker": self.broker}

    def turn(self, number: int) -> None:
        """Send the signal to every service."""
        for process in self.services.values():
            os.kill(process.popen.pid, number)


@click.command()
@click.option("--rounds", default=_ROUNDS, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs"), show_default=True)
def main(*, rounds: int, out: Path) -> None:
    """Measure the cost of metrics and logs."""
    with shown() as display, tempfile.TemporaryDirectory() as folder:
        display.expect(4 * rounds)
        figures = _measured(Path(folder), rounds, display)
    stored = out / "benchmarks" / "telemetry.json"
    results.save(stored, figures)
    results.write_section(out / results.PAGE, "telemetry", telemetry_report.written(figures))
    click.echo(f"wrote {out / results.PAGE} and {stored}")


def _measured(folder: Path, rounds: int, display: Display) -> results.Figures:
    image = pictures.encoded(pictures.scene(500, 375), "JPEG", quality=90)
    figures: results.Figures = {
        "machine": results.machine(),
        "measured": time.strftime("%Y-%m-%d"),
        "image_bytes": len(image),
        "at_once": _CONCURRENCY,
        "tracing_off_us": _tracing_off_us(),
    }
    with _broker(folder) as (node, broker):
        for way, embedder in (("stub", STUB), ("model", "embedder")):
            display.at(f"with {embedder}")
            (folder / way).mkdir()
            with _system(folder / way, node, broker, embedder) as system:
                figures[way] = asyncio.run(_alternated(system, image, rounds, display))
    return figures


async def _alternated(
    system: _System, image: bytes, rounds: int, display: Display
) -> results.Figures:
    """Measure turns of a few seconds, off and on, in changing order: drift affects both alike."""
    await _asked(system, image, _WARM_SECONDS)
    turns: dict[str, list[_Turn]] = {"off": [], "on": []}
    for number in range(rounds):
        for state in ("off", "on") if number % 2 else ("on", "off"):
            system.turn(OFF if state == "off" else ON)
            turns[state].append(await _asked(system, image, _SECONDS))
            display.done()
    more = [on["all"] - off["all"] for on, off in zip(turns["on"], turns["off"], strict=True)]
    return {
        **{state: _medians(rows) for state, rows in turns.items()},
        "more_ms": statistics.median(more),
        "more_spread_ms": statistics.quantiles(more, n=4),
    }


async def _asked(system: _System, image: bytes, seconds: float) -> _Turn:
    target = Target(system.url, [image], path="/v1/search?collection=stub")
    before = cpu_seconds(system.measured)
    run = await closed_loop(target, concurrency=_CONCURRENCY, seconds=seconds)
    after = cpu_seconds(system.measured)
    count = len(run.served)
    spent = {name: 1000 * (after[name] - before[name]) / count for name in after}
    return {**spent, "all": sum(spent.values()), "queries": count}


def _medians(rows: Sequence[_Turn]) -> _Turn:
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


@contextlib.contextmanager
def _broker(folder: Path) -> Iterator[tuple[Node, psutil.Process]]:
    place = folder / "rabbitmq"
    with running_node(place) as node:
        (process,) = (one for one in psutil.process_iter() if is_broker(one, place))
        yield node, process


@contextlib.contextmanager
def _system(folder: Path, node: Node, broker: psutil.Process, embedder: str) -> Iterator[_System]:
    """Run the services with defaults: logs at info, a line per query, to a file."""
    port = running.free_port()
    environment = {
        "SIMILE_AMQP_URL": node.url,
        "SIMILE_ROOT": str(folder / "root"),
        "SIMILE_LOG_FORMAT": "json",
        "SIMILE_UPLOAD_PORT": str(port),
        "SIMILE_UPLOAD_EMBEDDING_CACHE_BYTES": "0",
        "SIMILE_UPLOAD_DEADLINE_SECONDS": "10",
        "SIMILE_SEARCHER_LIVE_RECALL_SHARE": "0",
    }
    with contextlib.ExitStack() as ending:

        def start(name: str) -> Process:
            arguments = ["-m", "tests.benchmarks.telemetry_switch", name]
            process = running.start(name, arguments, folder / f"{name}.log", environment)
            ending.callback(process.stop)
            return process

        first = start(embedder)
        running.wait_until(first.ready, "ready", first)
        publish_version(
            Volume(folder / "root"),
            "stub",
            unit_vectors(_ITEMS, dimension=DIMENSION),
            items(_ITEMS),
            model_id=MODEL if embedder == STUB else _model_id(first),
            method="exact",
        )
        services = {"embedder": first, **{name: start(name) for name in ("searcher", "upload")}}
        for process in services.values():
            running.wait_until(process.ready, "ready", process)
        yield _System(services, broker, f"http://127.0.0.1:{port}")


def _model_id(embedder: Process) -> str:
    found = re.search(r'model_workers{[^}]*model_id="([^"]+)"', embedder.metrics())
    if found is None:
        message = "the embedder does not report its model"
        raise click.ClickException(message)
    return found[1]


def _tracing_off_us() -> float:
    """Return the microseconds per query of calls to a disabled tracer, in three services."""
    tracer, watch = NoTracing().tracer("upload"), Stopwatch(0.0)
    began = time.perf_counter()
    for _ in range(_CALLS):
        tracing.sound("")
        tracer.begin("", watch.began)
        for _service in range(2):
            if tracing.sampled(""):
                tracer.record("", watch, "", {})
    return 1e6 * (time.perf_counter() - began) / _CALLS


if __name__ == "__main__":
    sys.exit(main())

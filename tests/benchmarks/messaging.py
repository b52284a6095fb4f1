"""Measures a query without its computation: `python -m tests.benchmarks.messaging`.

Runs the real services over RabbitMQ, with a model that computes nothing and an index of 100
vectors: first without HTTP, through an inbox, then with the HTTP front and the load generator.
Writes messaging.json and a section of benchmarks.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import psutil

from services.bench.load.load import Target, closed_loop
from services.embedder import service as embedder
from services.embedder.models.model import Pixels, RuntimeInfo, Vectors
from services.embedder.settings import EmbedderSettings
from services.shared.contracts import Box, Question
from services.shared.imaging import Probe
from services.shared.lifecycle import cancel
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker
from services.shared.messaging.rabbitmq.broker import AmqpBroker
from services.shared.messaging.request_reply import Inbox
from services.shared.process import run_service
from services.shared.settings import SharedSettings, load
from services.shared.telemetry import Telemetry
from services.shared.volume.volume import Volume
from services.upload.metrics import UploadMetrics
from services.upload.search.embedding_cache import EmbeddingCache
from services.upload.search.queries import QueryLimits, SearchQuery, new_query_id
from services.upload.search.search_client import SearchClient
from services.upload.search.workers import Workers
from tests.benchmarks import messaging_report, results
from tests.benchmarks.display import Display, shown
from tests.support import running
from tests.support.pictures import plain_jpeg
from tests.support.rabbitmq import Node, running_node
from tests.support.volume import items, publish_version, unit_vectors

CONCURRENCIES: Final = (1, 8, 32, 64)

MODEL: Final = "stub@000000000000/nothing/1280"
DIMENSION: Final = 1280
_ITEMS: Final = 100
_IMAGE_BYTES: Final = 60_000
_COLLECTION: Final = "stub"
_ROUNDS: Final = 5
_SECONDS: Final = 3.0
_WARM_SECONDS: Final = 1.0
_DEADLINE_SECONDS: Final = 10.0


Processes = Mapping[str, psutil.Process]
"""Processes by their role."""


@dataclasses.dataclass(frozen=True, slots=True)
class Stub:
    """A model that ignores its input."""

    model_id: str = MODEL
    dimension: int = DIMENSION
    input_size: int = 8
    batch_limit: int = 16
    chunk_images: int = 16
    runtime: RuntimeInfo = dataclasses.field(
        default_factory=lambda: RuntimeInfo("stub", "fp32", "cpu")
    )

    def prepare(
        self, image: bytes, box: Box | None = None, *, known: Probe | None = None
    ) -> Pixels:
        """Return black pixels."""
        del image, box, known
        return np.zeros((8, 8, 3), np.uint8)

    def embed(self, batch: Pixels) -> Vectors:
        """Return the same vector for all."""
        return np.ones((len(batch), DIMENSION), np.float32)


def serve_stub() -> None:
    """Run an embedder with that model, until a signal."""
    settings, shared = load(EmbedderSettings, decode_threads=1), load(SharedSettings)

    async def run(broker: Broker, stop: asyncio.Event, telemetry: Telemetry) -> None:
        await embedder.run_with(
            lambda *_: [Stub()], settings, shared, broker, stop=stop, telemetry=telemetry
        )

    run_service("embedder", shared, run)


@click.command()
@click.option("--serve-stub", "stub", is_flag=True, hidden=True)
@click.option("--rounds", default=_ROUNDS, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs"), show_default=True)
def main(*, stub: bool, rounds: int, out: Path) -> None:
    """Measure messaging without computation."""
    if stub:
        serve_stub()
        return
    with shown() as display, tempfile.TemporaryDirectory() as folder:
        display.expect(2 * rounds * len(CONCURRENCIES))
        figures = asyncio.run(_measured(Path(folder), rounds, display))
    stored = out / "benchmarks" / "messaging.json"
    results.save(stored, figures)
    results.write_section(out / results.PAGE, "messaging", messaging_report.written(figures))
    click.echo(f"wrote {out / results.PAGE} and {stored}")


async def _measured(folder: Path, rounds: int, display: Display) -> results.Figures:
    volume = Volume(folder / "root")
    vectors = unit_vectors(_ITEMS, dimension=DIMENSION)
    publish_version(volume, _COLLECTION, vectors, items(_ITEMS), model_id=MODEL, method="exact")
    points: dict[str, dict[int, list[Mapping[str, float]]]] = {
        way: {concurrency: [] for concurrency in CONCURRENCIES} for way in ("inbox", "http")
    }
    with _system(folder) as (node, processes, url):
        display.at("an idle broker")
        idle = await _idle_cores(processes)
        for _ in range(rounds):
            for concurrency in CONCURRENCIES:
                display.at(f"{concurrency} at a time")
                before = cpu_seconds(processes)
                run = await _by_inbox(node.url, concurrency)
                points["inbox"][concurrency].append(_point(run, processes, before))
                display.done()
                before = cpu_seconds(processes)
                run = await _by_http(url, concurrency)
                points["http"][concurrency].append(_point(run, processes, before))
                display.done()
    return {
        "machine": results.machine(),
        "measured": time.strftime("%Y-%m-%d"),
        "image_bytes": _IMAGE_BYTES,
        "idle_cores": idle,
        **{
            way: {str(concurrency): _medians(rows) for concurrency, rows in by.items()}
            for way, by in points.items()
        },
    }


@contextlib.contextmanager
def _system(folder: Path) -> Iterator[tuple[Node, Processes, str]]:
    """Run a broker and the services; yield the node, all processes, and the front's URL."""
    broker_folder = folder / "rabbitmq"
    with contextlib.ExitStack() as ending:
        node, port = ending.enter_context(running_node(broker_folder)), running.free_port()
        environment = {
            "SIMILE_AMQP_URL": node.url,
            "SIMILE_ROOT": str(folder / "root"),
            "SIMILE_LOG_LEVEL": "warning",
            "SIMILE_UPLOAD_PORT": str(port),
            "SIMILE_UPLOAD_EMBEDDING_CACHE_BYTES": "0",
            "SIMILE_UPLOAD_DEADLINE_SECONDS": str(_DEADLINE_SECONDS),
        }
        commands = {
            "embedder": ["-m", __spec__.name, "--serve-stub"],
            "searcher": ["-m", "services.searcher"],
            "upload": ["-m", "services.upload"],
        }
        processes = {"client": psutil.Process()}
        for name, arguments in commands.items():
            process = running.start(name, arguments, folder / f"{name}.log", environment)
            ending.callback(process.stop)
            running.wait_until(process.ready, "ready", process)
            processes[name] = psutil.Process(process.popen.pid)
        (processes["broker"],) = (
            one for one in psutil.process_iter() if is_broker(one, broker_folder)
        )
        yield node, processes, f"http://127.0.0.1:{port}"


def is_broker(process: psutil.Process, folder: Path) -> bool:
    """Return whether the process is the RabbitMQ node of the folder."""
    with contextlib.suppress(psutil.Error):
        return process.name() == "beam.smp" and str(folder) in " ".join(process.cmdline())
    return False


async def _by_inbox(url: str, concurrency: int) -> list[float]:
    """Return the latencies of queries without HTTP."""
    broker = AmqpBroker(url, name="messaging benchmark")
    await broker.start(topology.ALL)
    inbox = Inbox(broker, "benchmark")
    receiving = asyncio.create_task(inbox.run())
    await inbox.opened()
    metrics = UploadMetrics(Telemetry().registry)
    client = SearchClient(
        broker, inbox, EmbeddingCache(0, metrics.embeddings), Workers(broker),
        QueryLimits(_DEADLINE_SECONDS, concurrency), metrics,
    )  # fmt: skip
    image, latencies, end = _image(), list[float](), time.perf_counter() + _SECONDS

    async def ask_repeatedly() -> None:
        while (started := time.perf_counter()) < end:
            question = Question(collection=_COLLECTION, k=10)
            query = SearchQuery(query_id=new_query_id(), question=question)
            await client.search(query, image)
            latencies.append(time.perf_counter() - started)

    await asyncio.gather(*(ask_repeatedly() for _ in range(concurrency)))
    await cancel(receiving)
    await broker.close()
    return latencies


def _image() -> bytes:
    """Return a picture of a usual size; trailing bytes make each request unique."""
    image = plain_jpeg((10, 90, 40), (300, 200))
    return image + bytes(_IMAGE_BYTES - len(image))


async def _by_http(url: str, concurrency: int) -> list[float]:
    body = _image()
    target = Target(url, [body], path=f"/v1/search?collection={_COLLECTION}")
    run = await closed_loop(target, concurrency=concurrency, seconds=_SECONDS)
    return list(run.served)


def _point(
    latencies: Sequence[float], processes: Processes, before: Mapping[str, float]
) -> Mapping[str, float]:
    after = cpu_seconds(processes)
    spent = {name: 1000 * (after[name] - before[name]) / len(latencies) for name in after}
    return {
        "queries_per_second": len(latencies) / _SECONDS,
        "p50_ms": 1000 * float(np.percentile(latencies, 50)),
        "p99_ms": 1000 * float(np.percentile(latencies, 99)),
        "cpu_ms": sum(spent.values()),
        **{f"{name}_cpu_ms": milliseconds for name, milliseconds in spent.items()},
    }


def _medians(rows: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


async def _idle_cores(processes: Processes) -> float:
    """Return the CPU cores that all processes use without load."""
    await asyncio.sleep(_WARM_SECONDS)
    before = cpu_seconds(processes)
    await asyncio.sleep(_SECONDS)
    return (sum(cpu_seconds(processes).values()) - sum(before.values())) / _SECONDS


def cpu_seconds(processes: Processes) -> dict[str, float]:
    """Return user and system time by process."""
    found = {}
    for name, process in processes.items():
        times: Any = process.cpu_times()
        found[name] = float(times.user + times.system)
    return found


if __name__ == "__main__":
    sys.exit(main())

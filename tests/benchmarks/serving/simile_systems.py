"""Starts Simile: as one process, and as processes over RabbitMQ."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from tests.benchmarks.serving.children import (
    Children,
    NotServing,
    children,
    free_port,
    poll,
)
from tests.benchmarks.serving.systems import (
    ONE_CORE,
    SIMILE,
    SIMILE_LOCAL,
    TWO_CORES,
    Bench,
    Running,
    System,
)
from tests.support.rabbitmq import Node, running_node

COLLECTION: Final = "photographs"
_PATH: Final = f"/v1/search?collection={COLLECTION}"
_START_SECONDS: Final = 180.0
_ONE_EMBEDDER: Final[Sequence[Sequence[int]]] = ((),)


def environment(bench: Bench) -> Mapping[str, str]:
    """Return the settings: the rivals' runtime, no cached answers, otherwise defaults."""
    return {
        "SIMILE_ROOT": str(bench.root),
        "SIMILE_EMBEDDER_DEVICE": "cpu",
        "SIMILE_EMBEDDER_RUNTIME": "onnxruntime",
        "SIMILE_UPLOAD_DEADLINE_SECONDS": "3",
        "SIMILE_UPLOAD_EMBEDDING_CACHE_BYTES": "0",
        "SIMILE_ADMIN_PORT": "0",
    }


def build_index(bench: Bench) -> None:
    """Build or refresh the index, which the measured starts then use."""
    with children(bench.logs) as system:
        build = system.spawn(
            "build",
            [sys.executable, "-m", "services", "index", "build", bench.images,
             "--collection", COLLECTION],
            environment(bench),
        )  # fmt: skip
        if build.wait():
            raise NotServing(system.log("build"))


@contextlib.contextmanager
def in_one_process(bench: Bench) -> Iterator[Running]:
    """Run `simile up`, all services on the broker in memory."""
    with children(bench.logs) as system:
        system.spawn(
            "up",
            [sys.executable, "-m", "services", "up", "--port", "0", "--images", bench.images,
             "--collection", COLLECTION],
            environment(bench),
        )  # fmt: skip
        deadline = time.monotonic() + _START_SECONDS
        while (url := _announced(system.log("up"))) is None:
            _still(system, deadline)
        yield Running(url, _PATH, system.pids, front=system.started[-1].pid)


def _announced(log: str) -> str | None:
    lines = [line for line in log.splitlines() if line.startswith("ready ")]
    return lines[0].removeprefix("ready ").strip() if lines else None


@contextlib.contextmanager
def in_processes(
    bench: Bench, embedders: Sequence[Sequence[int]] = _ONE_EMBEDDER
) -> Iterator[Running]:
    """Run upload, searcher and embedders over RabbitMQ.

    embedders: the cores of each; empty: all cores.
    """
    with running_node(bench.logs / "rabbitmq") as node, children(bench.logs) as system:
        system.adopted.append(node_pid(node))
        common = {**environment(bench), "SIMILE_AMQP_URL": node.url}
        ready = [
            _serve(system, f"embedder-{number}", common, _on(cores))
            for number, cores in enumerate(embedders, 1)
        ]
        _serve(system, "searcher-1", common)
        port = free_port()
        _serve(system, "upload-1", {**common, "SIMILE_UPLOAD_PORT": str(port)})
        url = f"http://127.0.0.1:{port}"
        until_answered(system, url + _PATH, bench.probe)
        yield Running(url, _PATH, system.pids, max(ready), front=system.started[-1].pid)


def _on(cores: Sequence[int]) -> Sequence[str]:
    return ["taskset", "-c", ",".join(map(str, cores))] if cores else []


def node_pid(node: Node) -> int:
    """Return the process that the broker's virtual machine is a child of."""
    pid = node.pid
    if pid is None:
        message = "the broker does not run"
        raise NotServing(message)
    return pid


def _serve(
    system: Children, replica: str, common: Mapping[str, str], before: Sequence[str] = ()
) -> float:
    """Start a service and wait until it is ready; return the seconds."""
    admin = free_port()
    started = time.perf_counter()
    system.spawn(
        replica,
        [*before, sys.executable, "-m", f"services.{replica.partition('-')[0]}"],
        {**common, "SIMILE_REPLICA": replica, "SIMILE_ADMIN_PORT": str(admin)},
    )
    deadline = time.monotonic() + _START_SECONDS
    while not _ok(f"http://127.0.0.1:{admin}/readyz", None):
        _still(system, deadline)
    return time.perf_counter() - started


def until_answered(system: Children, url: str, image: bytes) -> None:
    """Wait for the first image with status 200. Raises NotServing."""
    deadline = time.monotonic() + _START_SECONDS
    while not _ok(url, image):
        _still(system, deadline)


def _still(system: Children, deadline: float) -> None:
    system.check()
    if time.monotonic() > deadline:
        message = f"not ready after {_START_SECONDS:g} s; its logs are in {system.folder}"
        raise NotServing(message)
    poll()


def _ok(url: str, body: bytes | None) -> bool:
    request = urllib.request.Request(
        url, data=body, headers={"Content-Type": "application/octet-stream"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@contextlib.contextmanager
def _one_core(bench: Bench) -> Iterator[Running]:
    with in_processes(bench, embedders=[[0]]) as running:
        yield running


@contextlib.contextmanager
def _two_cores(bench: Bench) -> Iterator[Running]:
    with in_processes(bench, embedders=[[0], [1]]) as running:
        yield running


SYSTEMS: Final = (
    System(SIMILE_LOCAL, "Simile, one process", "simile", in_one_process, overloaded=True),
    System(SIMILE, "Simile, processes over RabbitMQ", "simile", in_processes, overloaded=True),
    System(
        ONE_CORE, "one embedder on one core", "simile", _one_core, concurrencies=(32, 64),
    ),
    System(
        TWO_CORES, "two embedders on a core each", "simile", _two_cores, concurrencies=(32, 64),
    ),
)  # fmt: skip


def versions() -> Mapping[str, str]:
    """Return the broker's version."""
    found = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", "rabbitmq-server"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {"rabbitmq": found.stdout or os.environ.get("RABBITMQ_VERSION", "unknown")}

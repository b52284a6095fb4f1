"""Starts the common alternatives, each as its documentation says."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from tests.benchmarks.datasets import CACHE
from tests.benchmarks.serving.children import NotServing, children, free_port
from tests.benchmarks.serving.simile_systems import until_answered
from tests.benchmarks.serving.systems import FAMILIES, Bench, Running, System

_SERVERS: Final = "tests.benchmarks.rivals"
_REQUIREMENTS: Final = Path(__file__).resolve().parents[1] / "rivals" / "requirements.txt"
_VENV: Final = CACHE.parent / "rivals" / "venv"
_CORES: Final = os.cpu_count() or 1
_PATH: Final = "/"

_GIVEN_BATCH: Final = "8"
"""As Simile's on a CPU: with larger batches a worker takes all images, and another idles."""

_HIGH_THROUGHPUT: Final = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
"""The high-throughput mode of Ray's docs."""

Command = Callable[[Path, int], Sequence[object]]
"""Returns a server's command for the folder of the rivals' programs and its port."""


def installed() -> Path:
    """Return the folder of the rivals' programs, installed into their own environment at first.

    Libraries shared with Simile (torch, ONNX Runtime, Annoy) come from Simile's environment.
    """
    programs = _VENV.resolve() / "bin"
    stamp = _VENV / "installed.txt"
    wanted = _REQUIREMENTS.read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", _VENV], check=True)
        subprocess.run(
            [programs / "python", "-m", "pip", "install", "--quiet", "-r", _REQUIREMENTS],
            check=True,
        )
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        ours = Path(sys.prefix) / "lib" / version / "site-packages"
        # Last on the path: it only adds packages that the rivals don't have.
        (_VENV / "lib" / version / "site-packages" / "simile.pth").write_text(f"{ours}\n")
        stamp.write_text(wanted)
    return programs


def versions() -> Mapping[str, str]:
    """Return the rivals' pinned versions."""
    lines = [line for line in _REQUIREMENTS.read_text().splitlines() if "==" in line]
    return {name: version for name, _, version in (line.partition("==") for line in lines)}


@contextlib.contextmanager
def _server(
    command: Command, variant: str, extra: Mapping[str, str], bench: Bench
) -> Iterator[Running]:
    programs, port = installed(), free_port()
    # Ray's sockets have paths of at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="rival-") as scratch, children(bench.logs) as system:
        system.spawn(
            "server", command(programs, port), {**_environment(variant, bench, scratch), **extra}
        )
        url = f"http://127.0.0.1:{port}"
        until_answered(system, url + _PATH, bench.probe)
        yield Running(url, _PATH, system.pids)


def _environment(variant: str, bench: Bench, scratch: str) -> Mapping[str, str]:
    batch = {"RIVAL_MAX_BATCH": _GIVEN_BATCH} if variant == "given" else {}
    return {
        **batch,
        "RIVAL_VARIANT": variant,
        "RIVAL_FOLDER": str(bench.index.resolve()),
        "RAY_TMPDIR": scratch,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{scratch}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{scratch}/haproxy.sock",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{scratch}/metrics.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": scratch,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{scratch}/haproxy.state",
        "BENTOML_DO_NOT_TRACK": "true",
        "BENTOML_HOME": f"{scratch}/bentoml",
    }


def _module(name: str, *options: object) -> Command:
    return lambda programs, port: (
        programs / "python", "-m", f"{_SERVERS}.{name}", "--port", port, *options
    )  # fmt: skip


def _bento(programs: Path, port: int) -> Sequence[object]:
    service = f"{_SERVERS}.bento_server:Neighbors"
    return (programs / "bentoml", "serve", service, "--host", "127.0.0.1", "--port", port)


@contextlib.contextmanager
def _design_of_2018(workers: Sequence[str], bench: Bench) -> Iterator[Running]:
    programs, port, redis_port = installed(), free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="rival-") as scratch, children(bench.logs) as system:
        variables = {
            **_environment("documented", bench, scratch),
            "RIVAL_REDIS_PORT": str(redis_port),
        }
        system.spawn(
            "redis",
            ["redis-server", "--port", redis_port, "--bind", "127.0.0.1", "--save", "",
             "--dir", scratch],
            variables,
        )  # fmt: skip
        system.spawn("model", [programs / "python", "-m", f"{_SERVERS}.redis_model"], variables)
        system.spawn(
            "web",
            [programs / "gunicorn", "--bind", f"127.0.0.1:{port}", "--timeout", "120", *workers,
             f"{_SERVERS}.redis_web:app"],
            variables,
        )  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        until_answered(system, url + _PATH, bench.probe)
        yield Running(url, _PATH, system.pids)


def _rival(
    family: str,
    detail: str,
    command: Command,
    *,
    documented: bool = False,
    extra: Mapping[str, str] | None = None,
    overloaded: bool = False,
) -> System:
    variant = "documented" if documented else "given"
    name = "-".join([family, variant, *detail.split()])
    title = f"{FAMILIES[family]}{', ' if detail else ''}{detail}"
    start = partial(_server, command, variant, extra or {})
    return System(name, title, family, start, overloaded=overloaded)


SYSTEMS: Final = (
    _rival("micro-batcher", "", _module("micro_batcher"), overloaded=True),
    _rival("litserve", "1 worker 2 threads",
           _module("litserve_server", "--workers", 1, "--threads", _CORES)),
    _rival("litserve", "2 workers 1 thread",
           _module("litserve_server", "--workers", _CORES, "--threads", 1), overloaded=True),
    _rival("bentoml", "2 workers", _bento, extra={"BENTO_WORKERS": str(_CORES)}),
    _rival("ray", "2 replicas", _module("ray_server", "--replicas", _CORES)),
    _rival("ray-haproxy", "2 replicas", _module("ray_server", "--replicas", _CORES),
           extra=_HIGH_THROUGHPUT),
    _rival("litserve", "", _module("litserve_server", "--workers", 1, "--threads", 1),
           documented=True),
    _rival("bentoml", "", _bento, documented=True),
    _rival("ray", "", _module("ray_server", "--replicas", 1), documented=True),
    # As in Gunicorn's docs: twice the cores, plus one.
    System("2018-sync", "the design of 2018, sync workers", "2018",
           partial(_design_of_2018, ["--workers", str(2 * _CORES + 1)]), longer=2),
    System("2018-threads", "the design of 2018, threads", "2018",
           partial(_design_of_2018,
                   ["--workers", str(_CORES), "--worker-class", "gthread", "--threads", "32"]),
           longer=2),
)  # fmt: skip


def check() -> None:
    """Raise NotServing if a rival can't run."""
    if subprocess.run(["which", "redis-server"], capture_output=True, check=False).returncode:
        message = "redis-server is missing: apt-get install redis-server"
        raise NotServing(message)
    installed()

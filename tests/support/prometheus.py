"""Runs a private Prometheus for tests: own port, own storage, loopback only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.running import free_port

SERVER: Final = Path("/usr/bin/prometheus")
PROMTOOL: Final = Path("/usr/bin/promtool")
START_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """Holds a scrape target, `host:port`, and the labels that service discovery would give it."""

    address: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Series:
    """Holds a series of an answer: its labels, and its points as (Unix seconds, value)."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]

    @property
    def last(self) -> float:
        """Return the newest value."""
        return self.points[-1][1]


class QueryFailed(Exception):
    """Prometheus refused an expression, for the reason in the text."""


class Prometheus:
    """Runs a server that scrapes the given targets and evaluates the given rules."""

    def __init__(
        self,
        folder: Path,
        targets: Sequence[Target],
        *,
        rules: Sequence[Path] = (),
        scrape_interval: str = "1s",
    ) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._port = free_port()
        static = [{"targets": [one.address], "labels": dict(one.labels)} for one in targets]
        (folder / "prometheus.yml").write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": scrape_interval, "evaluation_interval": "1s"},
                    "rule_files": [str(path) for path in rules],
                    "scrape_configs": [{"job_name": "simile", "static_configs": static}],
                }
            )
        )

    def start(self) -> None:
        """Start the server and wait until it answers queries."""
        with (self._folder / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                [
                    SERVER,
                    f"--config.file={self._folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._folder / 'storage'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = (self._folder / "output.log").read_text()[-3000:]
                message = f"Prometheus did not start:\n{log}"
                raise RuntimeError(message)
            time.sleep(0.1)

    def stop(self) -> None:
        """End the server."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(timeout=30)
            self._process = None

    def _answers(self) -> bool:
        try:
            self.query("vector(1)")
        except (urllib.error.URLError, ConnectionError, TimeoutError, QueryFailed):
            return False
        return True

    def query(self, expression: str, *, at: float | None = None) -> list[Series]:
        """Return the series of an expression now, or at a time in Unix seconds."""
        asked = {"query": expression} | ({} if at is None else {"time": f"{at:.3f}"})
        answer = self._get("query", **asked)
        if answer["resultType"] == "scalar":
            return [Series({}, [_point(answer["result"])])]
        return [Series(one["metric"], [_point(one["value"])]) for one in answer["result"]]

    def query_range(
        self, expression: str, *, start: float, end: float, step: float
    ) -> list[Series]:
        """Return the series of an expression, a point every `step` seconds; gaps have no point."""
        answer = self._get(
            "query_range", query=expression, start=f"{start:.3f}", end=f"{end:.3f}", step=f"{step}"
        )
        return [Series(one["metric"], [*map(_point, one["values"])]) for one in answer["result"]]

    def rules(self) -> list[dict[str, Any]]:
        """Return every rule as Prometheus evaluates it: name, query, health, lastError, type."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **asked: str) -> Any:
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(asked)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as refused:
            raise QueryFailed(refused.read().decode()) from refused


def _point(pair: Sequence[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])


def require_prometheus() -> None:
    """Skip the test where Prometheus is not installed; fail in CI."""
    if SERVER.exists() and PROMTOOL.exists():
        return
    message = "Prometheus is not installed: run `make system`"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)

"""`simile bench` measures a small server that answers as Simile does."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from click.testing import CliRunner, Result

from services.cli.main import main
from services.shared.telemetry import Telemetry
from services.shared.telemetry.health import admin_app
from services.upload.metrics import UploadMetrics
from tests.support.threaded import threaded

BIRDS = {"name": "birds", "index_version": "v1", "model_id": "m", "count": 3}
_READS_OF_ONE_RUN = 3
"""A check before the runs, a reading before the run, and a reading after the run."""

SHORT = ["--seconds", "0.2", "--warmup-seconds", "0"]


class Simile:
    """Serves collections, searches and metrics, and records each query's parameters and headers."""

    def __init__(self) -> None:
        self.queries: list[Mapping[str, str]] = []
        self.headers: list[Mapping[str, str]] = []
        self.url = ""
        self.reads = 0

    async def collections(self, request: web.Request) -> web.Response:
        """Answer GET /v1/collections."""
        del request
        return web.json_response({"collections": [BIRDS]})

    async def search(self, request: web.Request) -> web.Response:
        """Answer POST /v1/search."""
        await request.read()
        self.queries.append(dict(request.query))
        self.headers.append(dict(request.headers))
        return web.json_response({}, headers={"Server-Timing": "model;dur=1"})

    async def failing(self, request: web.Request) -> web.Response:
        """Answer GET /failing/metrics, with 404 after one run."""
        del request
        self.reads += 1
        if self.reads > _READS_OF_ONE_RUN:
            raise web.HTTPNotFound
        return web.Response(text="process_cpu_seconds_total 1.0\n")

    def app(self) -> web.Application:
        """Return an app of all routes, those of the admin server included."""
        telemetry = Telemetry()
        UploadMetrics(telemetry.registry)
        app = web.Application()
        app.add_routes(
            [
                web.get("/v1/collections", self.collections),
                web.post("/v1/search", self.search),
                web.get("/failing/metrics", self.failing),
            ]
        )
        app.add_subapp("/admin/", admin_app(telemetry.health, telemetry.registry))
        return app


@contextlib.asynccontextmanager
async def _serving(simile: Simile) -> AsyncIterator[None]:
    async with TestServer(simile.app()) as running:
        simile.url = str(running.make_url("")).rstrip("/")
        yield


@pytest.fixture
def simile() -> Iterator[Simile]:
    """Run the server on a loop in a thread, since the command runs a loop of its own."""
    serving = Simile()
    with threaded(_serving(serving)):
        yield serving


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder with one image."""
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "one.jpg").write_bytes(b"\xff\xd8 an image")
    return folder


def bench(*arguments: object) -> Result:
    """Run the command, and return its result."""
    return CliRunner().invoke(main, ["bench", *map(str, arguments)])


def test_runs_come_one_after_another_with_their_figures(
    simile: Simile, images: Path, tmp_path: Path
) -> None:
    """Two loads become two rows of the table, of the JSON and of the page."""
    out, page = tmp_path / "out.json", tmp_path / "out.html"
    done = bench(
        "--url", simile.url, "--images", images, "--concurrency", "1,2", *SHORT, "-k", "7",
        "--metrics", f"{simile.url}/admin/metrics", "--json", out, "--report", page,
        "--header", "X-Team: birds",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "1 client" in done.output
    assert "2 clients" in done.output
    runs: list[dict[str, Any]] = json.loads(out.read_text())["runs"]
    assert [one["concurrency"] for one in runs] == [1, 2]
    assert all(one["by_code"].keys() == {"200"} for one in runs)
    assert all(next(iter(one["cpu_seconds_per_image"])).startswith("upload ") for one in runs)
    assert "Simile under load" in page.read_text()
    assert all(query == {"collection": "birds", "k": "7"} for query in simile.queries)
    assert all(headers["X-Team"] == "birds" for headers in simile.headers)


def test_the_results_are_printed_as_json(
    simile: Simile, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `--json -` standard output is JSON alone; the address comes from SIMILE_URL."""
    monkeypatch.setenv("SIMILE_URL", simile.url)
    done = bench("--images", images, "--concurrency", "1", *SHORT, "--json", "-")
    assert done.exit_code == 0, done.output
    assert [one["concurrency"] for one in json.loads(done.stdout)["runs"]] == [1]


def test_a_service_that_goes_away_costs_no_run_that_was_over(
    simile: Simile, images: Path, tmp_path: Path
) -> None:
    """The first run's figures are shown and written, and the exit code reports the failure."""
    out = tmp_path / "out.json"
    done = bench(
        "--url", simile.url, "--images", images, "--concurrency", "1,2", *SHORT,
        "--metrics", f"{simile.url}/failing/metrics", "--json", out,
    )  # fmt: skip
    assert done.exit_code == 1
    assert "failing/metrics" in done.output
    assert [one["concurrency"] for one in json.loads(out.read_text())["runs"]] == [1]


def test_rates_are_runs_too(simile: Simile, images: Path, tmp_path: Path) -> None:
    """Rates of 20 and 40 requests a second for 0.2 s give 4 and 8 requests."""
    out = tmp_path / "out.json"
    done = bench(
        "--url", simile.url, "--images", images, "--rate", "20,40", *SHORT, "--json", out
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    runs = json.loads(out.read_text())["runs"]
    assert [(one["rate"], one["requests"]) for one in runs] == [(20.0, 4), (40.0, 8)]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--concurrency", "1", "--rate", "5"], "one of --concurrency, --rate"),
        (["--concurrency", "1,x"], "not a list of positive numbers"),
        (["--rate", "0"], "not a list of positive numbers"),
        (["--rate", "inf"], "not a list of positive numbers"),
        (["--target-rate", "5"], "--target-rate has no effect without --find-capacity"),
        (["--embedders", "2"], "--embedders has no effect without --find-capacity"),
        (["--p99", "1"], "--p99 has no effect without --find-capacity"),
        (["--headroom", "0.1"], "--headroom has no effect without --target-rate"),
        (["--max-connections", "9"], "--max-connections has no effect without --rate"),
        (["--header", "nonsense"], "is not a header"),
        (["--header", "X: a\r\nY: b"], "is not a header"),
        (["--url", "localhost:8080"], "begins with http://"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], complaint: str, images: Path) -> None:
    """The options are checked before any request is sent."""
    done = bench("--images", images, *arguments)
    assert done.exit_code == 2
    assert complaint in done.output


def test_nobody_there_ends_with_a_line(images: Path) -> None:
    """The command prints a line with a code and advice, and no traceback."""
    done = bench("--url", "http://127.0.0.1:1", "--images", images)
    assert done.exit_code == 1
    assert done.output.startswith("simile: no Simile answers at http://127.0.0.1:1")
    assert done.output.endswith("(unreachable)\n")

"""Health answers are right; logs are JSON lines with an action, and noise is limited."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
import threading

import pytest
import structlog
from aiohttp.test_utils import TestClient
from prometheus_client import CollectorRegistry, Counter
from pytest_aiohttp.plugin import AiohttpClient

from services.shared.telemetry import Telemetry, logs
from services.shared.telemetry.health import Health, admin_app
from tests.support.waiting import until


@pytest.fixture
def health() -> Health:
    """Return the health of a process without checks."""
    return Health()


@pytest.fixture
async def admin(aiohttp_client: AiohttpClient, health: Health) -> TestClient:  # type: ignore[type-arg]
    """Run the admin server over `health`, with a metric."""
    registry = CollectorRegistry()
    Counter("simile_test_questions_total", "Questions.", registry=registry).inc()
    return await aiohttp_client(admin_app(health, registry))


async def test_an_unready_process_says_why(admin: TestClient, health: Health) -> None:  # type: ignore[type-arg]
    """A failing readiness check gives 503 with its reason, and the process stays live."""
    health.ready_when("broker", lambda: "the broker is unavailable")
    answer = await admin.get("/readyz")
    assert answer.status == 503
    assert (await answer.json())["failing"] == {"broker": "the broker is unavailable"}
    assert (await admin.get("/livez")).status == 200


async def test_a_process_that_is_not_live_is_not_ready(admin: TestClient, health: Health) -> None:  # type: ignore[type-arg]
    """A failing liveness check affects both endpoints."""
    health.live_when("worker", lambda: "wedged for 61 s")
    assert (await admin.get("/livez")).status == 503
    assert (await admin.get("/readyz")).status == 503


async def test_a_sound_process_is_ready(admin: TestClient, health: Health) -> None:  # type: ignore[type-arg]
    """Checks that pass give 200."""
    health.ready_when("broker", lambda: None)
    assert (await admin.get("/readyz")).status == 200


async def test_the_admin_port_names_no_version(admin: TestClient) -> None:  # type: ignore[type-arg]
    """The headers do not reveal which library answers."""
    for path in ("/livez", "/readyz", "/metrics", "/nothing"):
        assert (await admin.get(path)).headers["Server"] == "simile"


def test_readiness_is_a_metric() -> None:
    """The metric shows the result that /readyz has at the time of the scrape."""
    telemetry, failing = Telemetry(), dict[str, str]()
    telemetry.health.ready_when("broker", lambda: failing.get("reason"))
    ready = [telemetry.registry.get_sample_value("simile_ready")]
    failing["reason"] = "the broker is unavailable"
    ready.append(telemetry.registry.get_sample_value("simile_ready"))
    failing.clear()
    telemetry.health.live_when("worker", lambda: "wedged for 61 s")
    ready.append(telemetry.registry.get_sample_value("simile_ready"))
    assert ready == [1.0, 0.0, 0.0]


async def test_openmetrics_is_served_on_request(admin: TestClient) -> None:  # type: ignore[type-arg]
    """A Prometheus that accepts exemplars gets the format that holds them."""
    answer = await admin.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert answer.content_type == "application/openmetrics-text"
    assert (await answer.text()).endswith("# EOF\n")


async def test_metrics_are_exposed(admin: TestClient) -> None:  # type: ignore[type-arg]
    """The registry's metrics are at /metrics in the text format."""
    answer = await admin.get("/metrics")
    assert answer.content_type == "text/plain"
    assert "simile_test_questions_total 1.0" in await answer.text()


@pytest.fixture
def _restored_logging() -> object:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.usefixtures("_restored_logging")
def test_a_log_line_is_json_with_its_action(capsys: pytest.CaptureFixture[str]) -> None:
    """Each line is a JSON object with the event, its action, the level and the time."""
    logs.configure("info", "json")
    structlog.get_logger("simile.test").info("it happened", action="test", number=3)
    line = json.loads(capsys.readouterr().out)
    assert line["action"] == "test"
    assert line["number"] == 3
    assert {"event", "level", "timestamp"} <= set(line)


@pytest.mark.usefixtures("_restored_logging")
def test_a_line_holds_the_error_and_values_of_any_kind(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A traceback and other values become text in the line; lower levels are not logged."""
    logs.configure("warning", "json")
    log = structlog.get_logger("simile.test")
    log.info("not important")
    try:
        1 / 0  # noqa: B018 (raises)
    except ZeroDivisionError:
        log.exception("it failed", where=Health)
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert "ZeroDivisionError" in line["exception"]
    assert "Health" in line["where"]
    assert (line["level"], line["logger"]) == ("error", "simile.test")


@pytest.mark.usefixtures("_restored_logging")
def test_every_line_names_its_process_from_any_thread(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Lines of our code and of libraries name the process; a line's own values take precedence."""
    logs.configure("info", "json", service="embedder", replica="embedder-1")
    thread = threading.Thread(target=structlog.get_logger("simile.test").info, args=("ours",))
    thread.start()
    thread.join()
    logging.getLogger("library").warning("theirs")
    structlog.get_logger("simile.test").info("of another", replica="upload-2")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["replica"] for line in lines] == ["embedder-1", "embedder-1", "upload-2"]
    assert {line["service"] for line in lines} == {"embedder"}


class _Written(io.StringIO):
    """Stores text, and the part of it that was flushed."""

    flushed = ""

    def flush(self) -> None:
        self.flushed = self.getvalue()


@pytest.mark.usefixtures("_restored_logging")
async def test_an_event_loops_lines_are_written_together_and_warnings_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lines are written in order and soon; a thread without a loop writes at once."""
    written = _Written()
    monkeypatch.setattr(sys, "stdout", written)
    logs.configure("info", "json")
    log = structlog.get_logger("simile.test")
    log.info("first")
    log.info("second")
    assert not written.flushed
    while not written.flushed:
        await asyncio.sleep(0.01)
    log.info("third")
    log.warning("fourth")
    assert [json.loads(line)["event"] for line in written.flushed.splitlines()] == [
        "first", "second", "third", "fourth",
    ]  # fmt: skip
    await asyncio.to_thread(log.info, "fifth")
    assert "fifth" in written.flushed


@pytest.mark.usefixtures("_restored_logging")
def test_lines_of_an_ended_loop_do_not_delay_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each loop writes its own lines."""
    written = _Written()
    monkeypatch.setattr(sys, "stdout", written)
    logs.configure("info", "json")

    async def log(event: str) -> None:
        structlog.get_logger("simile.test").info(event)

    async def log_and_wait(event: str) -> None:
        await log(event)
        await until(lambda: event in written.flushed)

    asyncio.run(log("first"))
    asyncio.run(log_and_wait("second"))


@pytest.mark.usefixtures("_restored_logging")
def test_a_noisy_library_is_limited(capsys: pytest.CaptureFixture[str]) -> None:
    """A burst of a library's lines leaves one line for each library; our own lines all pass."""
    logs.configure("info", "json")
    for _ in range(50):
        logging.getLogger("aiormq.connection").warning("connection lost")
        logging.getLogger("opentelemetry.exporter").error("nobody listens")
        structlog.get_logger("simile.test").info("ours", action="test")
    lines = capsys.readouterr().out.splitlines()
    assert sum("connection lost" in line for line in lines) == 1
    assert sum("nobody listens" in line for line in lines) == 1
    assert sum('"ours"' in line for line in lines) == 50

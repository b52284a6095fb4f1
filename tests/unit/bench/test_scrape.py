"""The use of processes is the difference of two readings of their metrics."""

from __future__ import annotations

import math

import pytest
from aiohttp.pytest_plugin import AiohttpClient
from prometheus_client import CollectorRegistry, generate_latest

from services.bench.load import scrape
from services.embedder.metrics import EmbedderMetrics
from services.shared.errors import Unreachable
from services.shared.telemetry import Telemetry
from services.shared.telemetry.health import admin_app
from services.upload.metrics import UploadMetrics

A, B = "http://one:9090", "http://two:9090"


def embedder_text(cpu_seconds: float, *batches: int, workers: int = 2) -> str:
    """Return an embedder's metrics after these batches."""
    registry = CollectorRegistry()
    metrics = EmbedderMetrics(registry)
    metrics.model.labels("m", "onnxruntime", "fp32", "cpu").set(workers)
    for images in batches:
        metrics.batch_images.observe(images)
    cpu = f"# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total {cpu_seconds}\n"
    return generate_latest(registry).decode() + cpu


def upload_text() -> str:
    """Return an upload's metrics, without those of its process."""
    registry = CollectorRegistry()
    UploadMetrics(registry)
    return generate_latest(registry).decode()


def test_what_was_before_does_not_count() -> None:
    """CPU and batches between the readings are added up over the embedders."""
    before = {A: embedder_text(10.0, 8), B: embedder_text(20.0, 1)}
    after = {A: embedder_text(11.5, 8, 4, 3), B: embedder_text(22.0, 1, 1)}
    spent = scrape.spent(before, after)
    assert spent.cpu_seconds == {"embedder one:9090": 1.5, "embedder two:9090": 2.0}
    assert (spent.batches.count, spent.batches.images) == (3, 8)
    assert {limit: count for limit, count in spent.batches.by_limit.items() if count} == {
        1: 1,
        4: 2,
    }
    assert spent.batches.mean_images == pytest.approx(8 / 3)
    assert spent.of_service("embedder") == 3.5
    assert spent.replicas("embedder") == 2
    assert spent.workers == 4


def test_a_process_that_was_restarted_counts_from_zero() -> None:
    """Counters that fell belong to a new process, and no difference is negative."""
    spent = scrape.spent({A: embedder_text(10.0, 8, 8)}, {A: embedder_text(0.5, 2)})
    assert spent.cpu_seconds == {"embedder one:9090": 0.5}
    assert (spent.batches.count, spent.batches.images) == (1, 2)


def test_a_process_of_all_services_is_none_of_them() -> None:
    """The CPU of `simile up` can't be divided among the services."""
    both = upload_text() + embedder_text(1.0)
    spent = scrape.spent({A: both}, {A: upload_text() + embedder_text(3.0)})
    assert spent.cpu_seconds == {"simile up one:9090": 2.0}
    assert spent.of_service("upload") is None
    assert spent.replicas("upload") == 1


def test_a_process_that_does_not_report_its_cpu_is_left_out() -> None:
    """The CPU of such a process is unknown instead of zero."""
    spent = scrape.spent({A: upload_text()}, {A: upload_text()})
    assert spent.cpu_seconds == {}
    assert spent.of_service("upload") is None
    assert math.isnan(spent.batches.mean_images)


@pytest.mark.parametrize(("share", "limit"), [(0.5, 1), (0.9, 4), (0.95, 8), (1.0, 8)])
def test_the_limit_that_a_share_of_the_batches_kept_to(share: float, limit: float) -> None:
    """The limit is read from 5 batches of 1, 4 of up to 4 and 1 of up to 8."""
    batches = scrape.Batches(10, 20, {1: 5, 2: 0, 4: 4, 8: 1})
    assert batches.limit_of(share) == limit


async def test_the_services_report_what_they_use(aiohttp_client: AiohttpClient) -> None:
    """The admin address of a real process is enough, with or without the path."""
    telemetry = Telemetry()
    UploadMetrics(telemetry.registry)
    client = await aiohttp_client(admin_app(telemetry.health, telemetry.registry))
    url = str(client.make_url("")).rstrip("/")
    texts = await scrape.fetch([url, f"{url}/metrics"])
    for address, text in texts.items():
        reading = scrape.read(address, text)
        assert reading.services == ["upload"]
        assert reading.cpu_seconds is not None
        assert reading.cpu_seconds > 0


async def test_no_metrics_says_what_to_give() -> None:
    """The error of an address without a listener names the setting that holds the right one."""
    with pytest.raises(Unreachable, match="SIMILE_ADMIN_PORT"):
        await scrape.fetch(["http://127.0.0.1:1"])


def test_what_is_no_metrics_is_named() -> None:
    """A web page is refused, instead of being read as zeros."""
    with pytest.raises(Unreachable, match="not with Prometheus metrics"):
        scrape.read(A, "<html>hello</html>")

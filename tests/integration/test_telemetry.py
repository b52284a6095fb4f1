"""Tests the stages and the trace of a query through all services, over both brokers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.openmetrics.exposition import generate_latest

from services.embedder.models.model import Pixels, Vectors
from services.shared.messaging.broker import Broker
from services.shared.messaging.memory import MemoryBroker
from services.shared.messaging.rabbitmq.broker import AmqpBroker
from services.shared.telemetry.tracing import tracing
from tests.support.collector import Collector, collecting
from tests.support.fake_model import FakeModel
from tests.support.one_loop import system
from tests.support.pictures import plain_jpeg
from tests.support.rabbitmq import Node
from tests.support.running import free_port

MODEL_SECONDS = 4.0
CONCURRENCY = 4
IMAGE = plain_jpeg((200, 90, 40), (300, 200))
WALK = [
    "receive", "sniff", "publish", "embed_queue", "decode", "batch_wait", "model",
    "search_queue", "search", "rerank", "messaging", "reply",
]  # fmt: skip
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@dataclass
class SlowModel(FakeModel):
    """Embeds slowly, as a network does."""

    batch_limit: int = 2
    chunk_images: int = 2

    def embed(self, batch: Pixels) -> Vectors:
        """Return mean colours after a delay."""
        time.sleep(MODEL_SECONDS)
        return FakeModel.embed(self, batch)


@pytest.fixture(params=["memory", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Return each broker, not started."""
    if request.param == "memory":
        return MemoryBroker()
    node: Node = request.getfixturevalue("rabbitmq")
    return AmqpBroker(node.url, name="telemetry", publish_timeout_seconds=10)


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """Run a collector that the SDK sends to."""
    async with collecting() as listening:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", listening.url)
        yield listening


async def _ask(
    session: aiohttp.ClientSession, headers: Mapping[str, str] | None = None
) -> tuple[float, dict[str, Any], str]:
    """Send a query; return its seconds, the answer, and its correlation id."""
    began = time.perf_counter()
    async with session.post("/v1/search", data=IMAGE, headers=headers) as answer:
        body = await answer.json()
        assert answer.status == 200, body
        return time.perf_counter() - began, body, answer.headers["X-Correlation-Id"]


async def _connect(session: aiohttp.ClientSession) -> None:
    """Open connections first: their setup is not part of a service's time."""
    for path in ("/v1/collections", "/v1/collections"):
        await asyncio.gather(*(_get(session, path) for _ in range(CONCURRENCY)))


async def _get(session: aiohttp.ClientSession, path: str) -> None:
    async with session.get(path) as answer:
        await answer.read()


async def test_the_stages_of_a_query_sum_to_its_time(tmp_path: Path, broker: Broker) -> None:
    """Alone and queued, the stages sum to the caller's waiting time, with almost no rest."""
    async with (
        system(tmp_path, broker, SlowModel()) as running,
        aiohttp.ClientSession(running.url) as session,
    ):
        await _connect(session)
        await _ask(session)  # loading decoders once is not a stage of each query
        # Take the smallest rest of three: a busy machine only adds to it.
        alone = [await _ask(session) for _ in range(3)]
        asked = [min(alone, key=lambda one: one[1]["timings_ms"]["messaging"])]
        asked += await asyncio.gather(*(_ask(session) for _ in range(CONCURRENCY)))
        registry = running.telemetry.registry
    for waited, answer, _ in asked:
        *stages, total = (milliseconds / 1000 for milliseconds in answer["timings_ms"].values())
        assert list(answer["timings_ms"]) == [*WALK, "total"]
        assert sum(stages) == pytest.approx(total, rel=0.001)
        assert sum(stages) == pytest.approx(waited, rel=0.05)
        assert answer["timings_ms"]["messaging"] <= 0.05 * answer["timings_ms"]["total"]
    queued = [answer["timings_ms"]["embed_queue"] for _, answer, _ in asked]
    assert max(queued) > 900 * MODEL_SECONDS, "nothing has waited: this shows nothing of waiting"
    observed = sum(
        registry.get_sample_value("simile_upload_stage_seconds_sum", {"stage": stage}) or 0.0
        for stage in WALK
    )
    answered = registry.get_sample_value(
        "simile_upload_request_seconds_sum", {"route": "/v1/search"}
    )
    assert observed == pytest.approx(answered, rel=0.001)


async def _traced(
    tmp_path: Path, broker: Broker, count: int = 1, **headers: str
) -> tuple[list[str], str]:
    """Send queries while traces are on; return correlation ids, and metrics as OpenMetrics."""
    sending = tracing("otlp", "system")
    async with (
        system(tmp_path, broker, FakeModel(), sending) as running,
        aiohttp.ClientSession(running.url) as session,
    ):
        asked = [await _ask(session, headers) for _ in range(count)]
        exposed = generate_latest(running.telemetry.registry)  # type: ignore[no-untyped-call]
    await asyncio.to_thread(sending.close)
    return [correlation_id for *_, correlation_id in asked], exposed.decode()


async def test_a_query_is_one_trace_through_all_services(
    tmp_path: Path, broker: Broker, collector: Collector
) -> None:
    """The trace has the request, under it the work of embedder and searcher, and their stages."""
    (correlation_id,), _ = await _traced(tmp_path, broker)
    (root,) = (span for span in collector.spans if span.name == "POST /v1/search")
    assert root.trace_id == correlation_id, "the answer's header does not lead to its trace"
    assert root.parent_id == ""
    assert root.attributes["simile.code"] == "ok"
    names = [(one.service, one.name) for one in collector.children(root)]
    assert sorted(names) == sorted(
        [
            *(("simile-upload", stage) for stage in ("receive", "sniff", "publish", "reply")),
            ("simile-embedder", "embed"),
            ("simile-searcher", "search"),
        ]
    )
    by_name = {one.name: one for one in collector.children(root)}
    stages = {
        name: [one.name for one in collector.children(by_name[name])]
        for name in ("embed", "search")
    }
    assert stages == {
        "embed": ["embed_queue", "decode", "batch_wait", "model", "publish"],
        "search": ["search_queue", "search", "rerank", "publish"],
    }
    tree = [root, *by_name.values()]
    tree += [one for part in by_name.values() for one in collector.children(part)]
    assert {one.span_id for one in tree} == {
        one.span_id for one in collector.spans if one.trace_id == root.trace_id
    }
    assert all(root.began_ns <= one.began_ns <= one.ended_ns for one in tree)


async def test_a_batch_is_linked_with_its_queries(
    tmp_path: Path, broker: Broker, collector: Collector
) -> None:
    """The batch has its own span, linked with each query in it, and back."""
    await _traced(tmp_path, broker)
    (root,) = (span for span in collector.spans if span.name == "POST /v1/search")
    (batch,) = (span for span in collector.spans if span.name == "batch")
    (embed,) = (span for span in collector.spans if span.name == "embed")
    assert batch.links == (f"{root.trace_id}-{root.span_id}",)
    assert embed.links == (f"{batch.trace_id}-{batch.span_id}",)
    assert batch.attributes["simile.images"] == 1


async def test_a_callers_trace_continues(
    tmp_path: Path, broker: Broker, collector: Collector
) -> None:
    """A request's traceparent becomes the parent; two queries of a trace keep two names."""
    names, _ = await _traced(tmp_path, broker, count=2, traceparent=CALLER)
    assert names[0] != names[1]
    roots = [span for span in collector.spans if span.name == "POST /v1/search"]
    _, trace_id, parent_id, _ = CALLER.split("-")
    assert [(one.trace_id, one.parent_id) for one in roots] == [(trace_id, parent_id)] * 2


async def test_unsampled_traces_are_not_sent(
    tmp_path: Path, broker: Broker, collector: Collector
) -> None:
    """No service keeps spans of a trace that the caller does not sample."""
    await _traced(tmp_path, broker, traceparent=f"{CALLER[:-2]}00")
    assert collector.spans == []


async def test_a_missing_collector_delays_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a collector queries are answered, and the shutdown ends in time."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    async with asyncio.timeout(60):
        names, _ = await _traced(tmp_path, MemoryBroker(), count=3)
    assert len(set(names)) == 3


@pytest.mark.usefixtures("collector")
async def test_an_exemplar_links_a_metric_to_a_trace(tmp_path: Path, broker: Broker) -> None:
    """The OpenMetrics format has trace ids with the durations of traced queries."""
    (correlation_id,), exposed = await _traced(tmp_path, broker)
    examples = [line for line in exposed.splitlines() if f'trace_id="{correlation_id}"' in line]
    named = {line.partition("_bucket")[0] for line in examples}
    assert {
        "simile_upload_request_seconds",
        "simile_upload_stage_seconds",
        "simile_embedder_stage_seconds",
        "simile_searcher_stage_seconds",
    } <= named

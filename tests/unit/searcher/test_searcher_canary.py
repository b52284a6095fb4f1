"""The searcher's canary sends a stored vector through the queue, apart from users' queries."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.searcher.canary import judge
from services.searcher.service import run
from services.searcher.settings import SearcherSettings
from services.shared.lifecycle import cancel
from services.shared.messaging import topology
from services.shared.messaging.memory import MemoryBroker
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry
from services.shared.volume.volume import Volume
from tests.support.volume import items, publish_version, unit_vectors

COUNT = 30


class House:
    """Runs a searcher whose canary queries constantly."""

    def __init__(self, root: Path) -> None:
        self.volume, self.broker = Volume(root), MemoryBroker()
        self.telemetry, self.stop = Telemetry(), asyncio.Event()

    async def run(self) -> None:
        """Run the searcher until `stop`."""
        await self.broker.start(topology.ALL)
        shared = SharedSettings(root=self.volume.root, canary_seconds=0.01)
        await run(
            SearcherSettings(live_recall_share=1), shared, self.broker,
            stop=self.stop, telemetry=self.telemetry,
        )  # fmt: skip

    def metric(self, name: str, **labels: str) -> float:
        """Return a metric's value."""
        return self.telemetry.registry.get_sample_value(f"simile_searcher_{name}", labels) or 0.0

    async def until_answered(self, more: int = 1) -> None:
        """Wait for `more` further canaries that find themselves."""
        labels = {"asked_by": "vector", "code": "ok"}
        before = self.metric("canary_total", **labels)
        async with asyncio.timeout(20):
            while self.metric("canary_total", **labels) < before + more:
                await asyncio.sleep(0.005)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """Run a searcher of `birds`."""
    house = House(tmp_path)
    publish_version(house.volume, "birds", unit_vectors(COUNT), items(COUNT))
    running = asyncio.create_task(house.run())
    yield house
    house.stop.set()
    await running


async def test_a_stored_vector_finds_itself_and_counts_as_no_query(house: House) -> None:
    """The canary passes queue, search and reply, and counts in no query metric or live recall."""
    await house.until_answered(3)
    assert house.metric("canary_success_timestamp_seconds") > 0
    assert house.metric("canary_seconds_count", asked_by="vector") >= 3
    assert house.metric("queries_total", code="ok") == 0
    assert house.metric("search_seconds_count") == 0
    assert house.metric("live_recall_expected_total", collection="birds") == 0
    labels = {"collection": "birds", "rank": "nearest"}
    assert house.metric("neighbor_distance_count", **labels) == 0


async def test_canaries_continue_after_a_lost_connection_and_a_new_index(house: House) -> None:
    """Canaries succeed again after a lost connection and after a swap."""
    await house.until_answered()
    house.broker.sever()
    await house.until_answered(2)
    publish_version(house.volume, "birds", unit_vectors(9, seed=5), items(9), number=1)
    async with asyncio.timeout(20):
        while house.metric("index_bytes", collection="birds") == 0 or (
            house.metric("canary_total", asked_by="vector", code="ok") == 0
        ):
            await asyncio.sleep(0.01)
    await house.until_answered(2)
    assert not house.telemetry.health.not_ready()


async def test_a_queue_that_nobody_answers_makes_it_unready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a consumer takes every query and answers none, readiness reports the failing canary."""
    monkeypatch.setattr("services.searcher.service._CANARY_TIMEOUT_SECONDS", 0.05)
    house = House(tmp_path)
    publish_version(house.volume, "birds", unit_vectors(COUNT), items(COUNT))
    running = asyncio.create_task(house.run())
    await house.until_answered()
    queue = house.broker._stores[topology.SEARCH.name]
    queue.consumers.clear()
    await house.broker.consume(topology.SEARCH, prefetch=0)
    async with asyncio.timeout(30):
        while "searcher canary" not in house.telemetry.health.not_ready():
            await asyncio.sleep(0.01)
    assert not house.telemetry.health.not_live()
    house.stop.set()
    await running


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("ok", True),
        ("deadline_exceeded", False),
        ("wrong_answer", False),
        ("overloaded", None),
        ("broker_unavailable", None),
        ("no_index", None),
    ],
)
async def test_some_results_say_nothing_about_a_searcher(
    code: str,
    verdict: bool | None,  # noqa: FBT001 (a case of the parametrization)
) -> None:
    """Refusals, and failures that another check reports, are no verdict on the searcher."""
    assert await judge(code) is verdict


async def test_canaries_can_be_turned_off(tmp_path: Path) -> None:
    """With SIMILE_CANARY_SECONDS=0, no reply queue and no canary exist."""
    publish_version(Volume(tmp_path), "birds", unit_vectors(COUNT), items(COUNT))
    broker, telemetry = MemoryBroker(), Telemetry()
    await broker.start(topology.ALL)
    shared = SharedSettings(root=tmp_path, canary_seconds=0)
    running = asyncio.create_task(
        run(SearcherSettings(), shared, broker, stop=asyncio.Event(), telemetry=telemetry)
    )
    async with asyncio.timeout(20):
        while "searcher" not in telemetry.health._ready or telemetry.health.not_ready():
            await asyncio.sleep(0.01)
    queues = itertools.filterfalse(lambda name: "reply" not in name, broker._stores)
    assert not list(queues)
    assert "searcher canary" not in telemetry.health._ready
    await cancel(running)

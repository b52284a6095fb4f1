"""A session handles its interruption and finds the capacity."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web
from rich.console import Console

from services.bench.load.meter import Plan
from services.bench.session import BenchOptions, Session
from services.bench.sizing import SizingGoal
from tests.unit.bench.conftest import Server, served


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder with one image."""
    (tmp_path / "one.jpg").write_bytes(b"\xff\xd8 an image")
    return tmp_path


async def test_what_was_over_survives_an_interruption(server: Server, images: Path) -> None:
    """Ctrl-C in the second run keeps the first run's figures."""
    second = asyncio.Event()

    async def answering(body: bytes) -> web.Response:
        if len(server.connections) == 3:  # those of the preflight, the first run and this run
            second.set()
        return await served(body)

    server.answering = answering
    plan = Plan(seconds=0.1, warmup_seconds=0.0)
    later = BenchOptions(server.url, images, plan, concurrency=(1, 1))
    measuring = asyncio.create_task(Session(later, Console(quiet=True)).results())
    await second.wait()
    measuring.cancel()
    results = await measuring
    assert len(results.measured) == 1
    assert results.measured[0].run.goodput > 0
    assert results.facts.collection == "birds"


async def test_the_capacity_is_found_and_sized(server: Server, images: Path) -> None:
    """Probes run first, then rates; the advice follows from the best step."""
    plan = Plan(seconds=0.1, warmup_seconds=0.0)
    asked = BenchOptions(
        server.url, images, plan, goal=SizingGoal(p99_seconds=60, rate=1_000_000), embedders=1
    )
    session = Session(
        asked,
        Console(quiet=True),
        probe_clients=(1, 2),
        step_seconds=lambda rate: max(0.1, 10 / rate),
    )
    results = await session.results()
    found = results.capacity
    assert found is not None
    assert found.rate == found.steps[-1].rate > found.ceiling
    assert [one.run.concurrency for one in results.measured[:2]] == [1, 2]
    assert [one.run.rate for one in results.measured[2:]] == [one.rate for one in found.steps]
    assert [one.setting for one in results.advice] == [
        "embedder replicas",
        "upload replicas",
        "searcher replicas",
        "KEDA queue length per embedder (simile.embed)",
    ]

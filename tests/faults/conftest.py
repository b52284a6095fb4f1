"""Starts the system that all fault tests share, each service behind its own proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from services.local.sample import draw_sample
from tests.support.checker import Load
from tests.support.cut_proxy import CutProxy
from tests.support.light_embedder import SECONDS
from tests.support.rabbitmq import Node, running_node
from tests.support.system import COLLECTION, LIGHT, System

DEADLINE_SECONDS: Final = 4.0
SERVICES: Final = ("upload", "embedder", "searcher")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the long form."""
    parser.addoption("--kills", default=100, type=int, help="how many processes to kill")
    parser.addoption("--seed", default=None, help="to repeat a run")


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Run a RabbitMQ node for these tests: they kill it and raise its alarms."""
    with running_node(tmp_path_factory.mktemp("faults")) as node:
        yield node


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def links(node: Node) -> AsyncIterator[Mapping[str, CutProxy]]:
    """Yield the proxy between each service and the broker."""
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(CutProxy(node.port)) for name in SERVICES}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def whole_system(
    node: Node, links: Mapping[str, CutProxy], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[System]:
    """Start one upload, two embedders and two searchers with an index of the drawn sample."""
    folder = tmp_path_factory.mktemp("system")
    draw_sample(folder / "sample", per_class=4)
    # Short heartbeats of the embedders, for the test that stops one.
    urls = {name: node.url.replace(str(node.port), str(links[name].port)) for name in SERVICES}
    environment = {
        "SIMILE_UPLOAD_DEADLINE_SECONDS": str(DEADLINE_SECONDS),
        "SIMILE_UPLOAD_DEFAULT_COLLECTION": COLLECTION,
        # Without caches every query passes all services.
        "SIMILE_UPLOAD_EMBEDDING_CACHE_BYTES": "0",
        SECONDS: "0.01",
    }
    system = System(
        folder, folder / "sample",
        {**urls, "index": node.url, "embedder": urls["embedder"] + "?heartbeat=2"},
        embedder=LIGHT, environment=environment,
    )  # fmt: skip
    try:
        system.start("upload-1", "embedder-1", "embedder-2", "searcher-1", "searcher-2")
        await asyncio.to_thread(system.build)
        yield system
    finally:
        await asyncio.to_thread(system.stop)


@pytest_asyncio.fixture(loop_scope="session")
async def system(whole_system: System) -> AsyncIterator[System]:
    """Yield the system; every replica is ready before a test and after."""
    await whole_system.ready()
    yield whole_system
    await whole_system.ready()


@pytest.fixture
def load(system: System) -> Callable[..., Load]:
    """Return a function that creates a load of the system's images."""
    images = {path.read_bytes(): item_id for path, item_id in system.known().items()}

    def make(per_second: float = 20.0, urls: tuple[str, ...] = ()) -> Load:
        return Load(
            urls or system.urls, images, per_second=per_second, deadline_seconds=DEADLINE_SECONDS
        )

    return make


@pytest.fixture
def image(system: System) -> bytes:
    """Return an image of the collection."""
    path: Path = min(system.known())
    return path.read_bytes()


SEEN: Final = pytest.StashKey[list[str]]()


@pytest.fixture
def seen(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Return a function that records an observation for the summary."""
    lines = request.config.stash.setdefault(SEEN, [])

    def note(fault: str, *observed: object) -> None:
        lines.append(f"{fault}: {', '.join(map(_shown, observed))}")

    return note


def _shown(observed: object) -> str:
    if isinstance(observed, Mapping):
        return " ".join(f"{name} {count}" for name, count in observed.items())
    return str(observed)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the recorded observations."""
    lines = config.stash.get(SEEN, [])
    if lines:
        terminalreporter.section("faults")
        terminalreporter.write_line("\n".join(lines))

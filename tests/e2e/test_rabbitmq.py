"""Tests real processes over RabbitMQ: answers, a killed embedder, hostile files."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import Iterator
from functools import partial
from typing import Any

import aiohttp
import pytest

from services.local.sample import draw_sample
from services.shared.volume.items import ITEMS, ItemCatalog
from services.shared.volume.volume import Volume
from tests.support.photographs import awkward_dir
from tests.support.rabbitmq import Node
from tests.support.running import log_lines, wait_until
from tests.support.system import System, every_service_at
from tests.support.waiting import until

QUERIES = 200
CONCURRENCY = 8


@pytest.fixture(scope="module")
def system(rabbitmq: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Yield the running system with its index built."""
    folder = tmp_path_factory.mktemp("system")
    draw_sample(folder / "sample", per_class=8)
    environment = {"SIMILE_UPLOAD_DEADLINE_SECONDS": "30", "SIMILE_EMBEDDER_WORKERS": "1"}
    running = System(
        folder, folder / "sample", every_service_at(rabbitmq.url), environment=environment
    )
    try:
        running.start("upload-1", "embedder-1", "embedder-2", "searcher-1", "searcher-2")
        running.build()
        yield running
    finally:
        running.stop()


async def _search(
    session: aiohttp.ClientSession, url: str, image: bytes
) -> tuple[int, dict[str, Any]]:
    async with session.post(f"{url}/v1/search", data=image) as answer:
        return answer.status, await answer.json(content_type=None)


async def test_an_image_of_the_collection_finds_itself_first(system: System) -> None:
    """A query passes upload, embedder and searcher, and the nearest item is the image itself."""
    image = sorted(system.images.rglob("*.jpg"))[3]
    async with aiohttp.ClientSession() as session:
        status, answer = await _search(session, system.url, image.read_bytes())
    assert status == 200
    assert len(answer["neighbors"]) == 10
    first = answer["neighbors"][0]
    assert first["label"] == image.parent.name
    assert first["similarity"] == pytest.approx(1.0, abs=1e-3)
    assert set(answer["timings_ms"]) >= {"decode", "model", "search", "total"}


async def test_killing_an_embedder_under_load_loses_no_query(system: System) -> None:
    """SIGKILL during a batch: each of 200 queries is answered, or fails with a code in time."""
    images = [path.read_bytes() for path in sorted(system.images.rglob("*.jpg"))[:40]]
    gate, outcomes = asyncio.Semaphore(CONCURRENCY), []

    async def ask(session: aiohttp.ClientSession, number: int) -> None:
        async with gate:
            if number == QUERIES // 4:
                system.processes["embedder-1"].kill()
            outcomes.append(await _search(session, system.url, images[number % len(images)]))

    timeout = aiohttp.ClientTimeout(total=40)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        await asyncio.gather(*(ask(session, number) for number in range(QUERIES)))
    system.start("embedder-1")
    assert len(outcomes) == QUERIES
    failures = [answer.get("code") for status, answer in outcomes if status != 200]
    assert set(failures) <= {"deadline_exceeded"}
    # Queries that the killed embedder held are redelivered; a loss would show as a deadline.
    assert failures == []
    embedder = system.processes["embedder-1"]
    await asyncio.to_thread(wait_until, embedder.ready, "ready again", embedder)


REFUSED = {
    "empty.jpg": (400, "empty_image"),
    "text.jpg": (415, "unsupported_format"),
    "vector.svg": (415, "unsupported_format"),
    "bomb_400Mpx.png": (413, "too_many_pixels"),
    "extreme_aspect.png": (422, "extreme_aspect"),
    "truncated_half.jpg": (422, "undecodable_image"),
    "truncated_header.jpg": (422, "undecodable_image"),
}


async def test_every_awkward_file_gets_the_outcome_of_its_note(system: System) -> None:
    """Odd files are answered, hostile ones get a 4xx with a code, and no process dies."""
    folder = awkward_dir()
    with (folder / "NOTES.csv").open(newline="") as notes:
        names = [row["file"] for row in csv.DictReader(notes)]
    async with aiohttp.ClientSession() as session:
        seen = {}
        for name in names:
            status, answer = await _search(session, system.url, (folder / name).read_bytes())
            seen[name] = (status, answer.get("code"))
    assert seen == {name: REFUSED.get(name, (200, None)) for name in names}
    assert all(process.alive for process in system.processes.values())
    assert all(process.ready() for process in system.processes.values())


async def test_rotated_photographs_have_nearly_the_same_vector(system: System) -> None:
    """The three EXIF-rotated files and their upright original have nearly the same vector."""
    folder = awkward_dir()
    vectors = []
    async with aiohttp.ClientSession() as session:
        for name in ("reference", "3", "6", "8"):
            image = (folder / f"exif_orientation_{name}.jpg").read_bytes()
            async with session.post(f"{system.url}/v1/embed", data=image) as answer:
                vectors.append((await answer.json())["vector"])
    upright = vectors[0]
    for turned in vectors[1:]:
        assert sum(a * b for a, b in zip(upright, turned, strict=True)) > 0.97


async def test_swapping_the_index_under_load_mixes_no_versions(system: System) -> None:
    """While two versions alternate, each query is answered from the version that it names."""
    volume = system.volume
    first = volume.active("sample")
    extra = system.images / "extra"
    extra.mkdir()
    for number, file in enumerate(sorted(system.images.rglob("*.jpg"))[::4]):
        # Other bytes of the same picture are new items, which the old version must never name.
        (extra / f"{number}.jpg").write_bytes(file.read_bytes() + bytes(number + 1))
    await asyncio.to_thread(system.build)
    second = volume.active("sample")
    assert second != first
    known = {version: _item_ids(volume, version) for version in (first, second)}
    images = [path.read_bytes() for path in sorted(extra.iterdir())[:10]]
    answers: list[tuple[int, dict[str, Any]]] = []
    swapping = True

    async def ask(session: aiohttp.ClientSession, number: int) -> None:
        while swapping:
            answers.append(await _search(session, system.url, images[number]))

    async with aiohttp.ClientSession() as session:
        asking = [asyncio.create_task(ask(session, number)) for number in range(4)]
        for swap in range(10):
            version = (first, second)[swap % 2]
            volume.activate("sample", version)
            await until(partial(_answered_from, version, answers, len(answers)))
        swapping = False
        await asyncio.gather(*asking)
    assert [answer for status, answer in answers if status != 200] == []
    versions = {answer["index_version"] for _, answer in answers}
    assert versions == {first, second}
    for _, answer in answers:
        found = {neighbor["item_id"] for neighbor in answer["neighbors"]}
        assert found <= known[answer["index_version"]]
    strangers = known[second] - known[first]
    assert any(
        {neighbor["item_id"] for neighbor in answer["neighbors"]} & strangers
        for _, answer in answers
    )


def _answered_from(version: str, answers: list[tuple[int, dict[str, Any]]], first: int) -> bool:
    """Return whether one of the answers, counted from `first`, names the version."""
    return any(answer.get("index_version") == version for _, answer in answers[first:])


def _item_ids(volume: Volume, version: str) -> set[str]:
    catalog = ItemCatalog(volume.directory("sample", version) / ITEMS)
    return {item.item_id for item in catalog}


async def test_every_process_drains_and_exits_with_zero(system: System) -> None:
    """SIGTERM ends each process with exit code 0 and no error in its log."""
    codes = await asyncio.to_thread(system.stop)
    assert codes == dict.fromkeys(codes, 0)
    for process in system.processes.values():
        text = process.log.read_text()
        assert "Traceback" not in text
        complaints = [line for line in log_lines(process.log) if line["level"] != "info"]
        assert complaints == []

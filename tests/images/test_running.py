"""Tests Simile's images as a cluster runs them: build, search, and a lost embedder."""

from __future__ import annotations

import asyncio
import secrets
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.images.cluster import Running, running
from tests.support.podman import Pod

pytestmark = [pytest.mark.images, pytest.mark.timeout(1200)]

QUERIES = 200
CONCURRENCY = 8
SCRATCH = {"/tmp"}  # noqa: S108 (in a container)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Yield the running pods with the sample's index."""
    with running(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture
def pictures(cluster: Running) -> list[Path]:
    """Return the sample's pictures, which the job drew beside the index."""
    return sorted(cluster.cluster.claim("simile-index").rglob("sample/*/*.jpg"))


async def _search(
    session: aiohttp.ClientSession, url: str, image: bytes
) -> tuple[int, dict[str, Any]]:
    async with session.post(f"{url}/v1/search", data=image) as answer:
        return answer.status, await answer.json(content_type=None)


async def test_a_search_is_answered_through_uploads_port(
    cluster: Running, pictures: list[Path], report: list[str]
) -> None:
    """A picture of the sample finds itself first."""
    report.extend(
        f"simile-{name}: {seconds:.1f} s"
        + ("" if name == "index job" else " from `podman kube play` to ready")
        for name, seconds in cluster.start_seconds.items()
    )
    async with aiohttp.ClientSession() as session:
        status, answer = await _search(session, cluster.url, pictures[3].read_bytes())
        assert status == 200
        assert len(answer["neighbors"]) == 10
        first = answer["neighbors"][0]
        assert first["label"] == pictures[3].parent.name
        assert first["similarity"] == pytest.approx(1.0, abs=1e-3)
        async with session.get(f"{cluster.url}{first['thumbnail_url']}") as thumbnail:
            assert thumbnail.status == 200


def test_pods_run_as_the_manifests_say(cluster: Running) -> None:
    """Pods run without root and capabilities on a read-only root; only builds write the index."""
    for component in ("upload", "embedder", "searcher", "index"):
        found = cluster.pods[component].inspect()
        assert found["Config"]["User"].startswith("10001"), component
        assert found["HostConfig"]["ReadonlyRootfs"], component
        assert not found["EffectiveCaps"], component
        writable = {one["Destination"] for one in found["Mounts"] if one["RW"]}
        assert writable == SCRATCH | ({"/data"} if component == "index" else set()), component


@pytest.mark.parametrize("ending", [Pod.stop, Pod.kill], ids=["stopped", "killed"])
async def test_one_of_two_embedders_ends_under_load_and_nothing_is_lost(
    cluster: Running, pictures: list[Path], ending: Callable[[Pod], object], report: list[str]
) -> None:
    """With an embedder removed during 200 queries all of them are answered."""
    name = f"embedder-to-be-{ending.__name__}"
    second = await asyncio.to_thread(cluster.start, "embedder", name)
    report.append(f"second embedder: {await asyncio.to_thread(cluster.until_ready, name):.1f} s")
    outcomes: list[tuple[int, dict[str, Any]]] = []
    ends: list[asyncio.Task[object]] = []
    gate = asyncio.Semaphore(CONCURRENCY)

    async def ask(session: aiohttp.ClientSession, number: int) -> None:
        async with gate:
            if number == QUERIES // 4:
                assert _batches(cluster, name) > 0
                ends.append(asyncio.create_task(asyncio.to_thread(ending, second)))
            # Other bytes each time, after the picture's end, so that no cached answer is used.
            image = pictures[number % len(pictures)].read_bytes() + secrets.token_bytes(8)
            outcomes.append(await _search(session, cluster.url, image))

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        await asyncio.gather(*(ask(session, number) for number in range(QUERIES)))
    await asyncio.gather(*ends)
    assert [answer.get("code") for status, answer in outcomes if status != 200] == []
    assert len(outcomes) == QUERIES
    if ending is Pod.stop:
        assert second.exit_code() == 0, second.log()[-4000:]
        assert "Traceback" not in second.log()


def _batches(cluster: Running, name: str) -> float:
    """Return how many batches that embedder has computed."""
    with urllib.request.urlopen(f"{cluster.admin[name]}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return sum(
        float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if line.startswith("simile_embedder_batch_images_count")
    )

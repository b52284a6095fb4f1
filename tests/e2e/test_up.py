"""`simile up` as a newcomer starts it: draws, builds, answers, stops, and starts again fast."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from tests.support.running import log_lines, simile_up

BUILT = "index_published"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume that the tests of this module share, in their order."""
    return tmp_path_factory.mktemp("up")


async def test_up_draws_a_sample_and_answers(root: Path) -> None:
    """Without images it draws some, builds their index and answers with neighbours."""
    log = root / "first.log"
    with simile_up(log, "--root", str(root)) as (url, _):
        async with aiohttp.ClientSession() as session:
            collections = await (await session.get(f"{url}/v1/collections")).json()
            assert [entry["name"] for entry in collections["collections"]] == ["sample"]
            sample = await (await session.get(f"{url}/v1/collections/sample/sample")).json()
            item = sample["items"][0]
            image = await (await session.get(f"{url}{item['image_url']}")).read()
            answer = await (await session.post(f"{url}/v1/search", data=image)).json()
    assert answer["neighbors"][0]["item_id"] == item["item_id"]
    assert len(answer["neighbors"]) == 10
    assert any(line.get("action") == BUILT for line in log_lines(log))


async def test_up_again_reuses_the_index(root: Path) -> None:
    """A second start embeds nothing anew and publishes no other version."""
    versions = sorted(path.name for path in (root / "sample" / "versions").iterdir())
    with simile_up(root / "second.log", "--root", str(root)) as (url, process):
        async with aiohttp.ClientSession() as session:
            answer = await (await session.get(f"{url}/v1/collections/sample")).json()
        assert answer["index_version"] == versions[-1]
        code = process.stop()
    assert code == 0
    assert sorted(path.name for path in (root / "sample" / "versions").iterdir()) == versions

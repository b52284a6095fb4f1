"""The same image again: no embedder is asked, unless it must be."""

from __future__ import annotations

import pytest
from prometheus_client import Counter

from services.shared.contracts import Box
from services.upload.search.embedding_cache import EmbeddingMemory
from services.upload.search.lru import Memory
from services.upload.settings import UploadSettings
from tests.support.pictures import plain_jpeg
from tests.support.volume import DIMENSION
from tests.unit.upload.conftest import Api

RED = plain_jpeg((250, 0, 0))
BLUE = plain_jpeg((0, 0, 250))


def _count(api: Api, result: str) -> float:
    name = "simile_upload_embedding_cache_total"
    return api.telemetry.registry.get_sample_value(name, {"result": result}) or 0.0


async def test_the_same_bytes_are_embedded_once(api: Api) -> None:
    """Asked again, by body or in a batch, the answer is the same and no embedder is needed."""
    first = await api.search(RED)
    again = await api.search(RED)
    assert again.status == 200
    assert again.json["neighbors"] == first.json["neighbors"]
    assert "model" in first.json["timings_ms"]
    assert "model" not in again.json["timings_ms"]
    assert api.embedder.embedded == [RED]
    assert (await api.search(BLUE)).status == 200
    assert api.embedder.embedded == [RED, BLUE]
    assert (_count(api, "hit"), _count(api, "miss")) == (1, 2)
    held = api.telemetry.registry.get_sample_value("simile_upload_embedding_cache_bytes")
    assert held is not None
    assert held >= 2 * 4 * DIMENSION


async def test_a_part_is_another_image(api: Api) -> None:
    """A box has a vector of its own, which is remembered too."""
    for box in ("", "&box=0,0,0.5,0.5", "&box=0,0,0.5,0.5", "&box=0,0,0.4,0.5"):
        assert (await api.search(RED, f"/v1/search?k=2{box}")).status == 200
    assert len(api.embedder.embedded) == 3


async def test_what_is_asked_can_differ(api: Api) -> None:
    """The vector is of the image alone: another k, another page need no embedder."""
    first = await api.search(RED, "/v1/search?k=2")
    second = await api.search(RED, f"/v1/search?k=3&cursor={first.json['next_cursor']}")
    assert len(second.json["neighbors"]) == 3
    assert api.embedder.embedded == [RED]


async def test_another_model_makes_a_vector_stale(api: Api) -> None:
    """When the index is of another model the image is embedded anew, within the same request."""
    assert (await api.search(RED)).status == 200
    api.embedder.model_id = api.searcher.model_id = "another@0/pixels/8"
    for _ in range(2):
        again = await api.search(RED)
        assert again.json["model_id"] == "another@0/pixels/8"
    assert api.embedder.embedded == [RED, RED]
    assert (_count(api, "stale"), _count(api, "hit"), _count(api, "miss")) == (1, 2, 1)


class TestTurnedOff:
    """Without memory for it nothing is remembered, and nothing is sent for it."""

    @pytest.fixture
    def upload_settings(self) -> UploadSettings:
        """No memory."""
        return UploadSettings(port=0, deadline_seconds=10, embedding_cache_bytes=0)

    async def test_every_image_is_embedded(self, api: Api) -> None:
        """The same image again is as much work as before."""
        for _ in range(2):
            assert (await api.search(RED)).status == 200
        assert api.embedder.embedded == [RED, RED]
        assert not any(slip.return_vector for slip in api.searcher.slips)


async def test_a_large_image_is_known_by_its_bytes_too() -> None:
    """Whether a thread hashes or not, equal bytes are equal keys."""
    memory = EmbeddingMemory(10_000, Counter("any", "any", ["result"], registry=None))
    large = b"x" * (2**20 + 1)
    assert await memory.key(large, None) == await memory.key(bytes(large), None)
    assert await memory.key(large, None) != await memory.key(large[1:], None)
    assert await memory.key(large, Box(0, 0, 1, 1)) != await memory.key(large, None)


def test_the_least_recently_used_is_forgotten() -> None:
    """The memory holds so many bytes; what was used last stays."""
    memory = Memory[bytes](10, len)
    memory.put("one", b"1234")
    memory.put("two", b"1234")
    assert memory.get("one") == b"1234"
    memory.put("three", b"1234")
    assert memory.get("two") is None
    assert memory.get("one") == b"1234"
    assert memory.held_bytes == 8
    memory.put("one", b"12")
    assert memory.held_bytes == 6
    memory.drop("nothing")


def test_what_is_larger_than_the_memory_drives_nothing_out() -> None:
    """One huge value is not kept, and costs the others nothing."""
    memory = Memory[bytes](10, len)
    memory.put("one", b"1234")
    memory.put("huge", b"1" * 11)
    assert memory.get("huge") is None
    assert memory.get("one") == b"1234"
    memory.put("one", b"1" * 11)
    assert memory.get("one") is None
    assert memory.held_bytes == 0

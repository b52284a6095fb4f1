"""A vector of an image is cached, and used while the index has the same model."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter

from services.shared.contracts import Box
from services.upload.search.embedding_cache import EmbeddingCache, Vector
from services.upload.settings import UploadSettings
from tests.support.pictures import plain_jpeg
from tests.support.volume import DIMENSION, MODEL
from tests.unit.upload.conftest import Api

RED = plain_jpeg((250, 0, 0))
BLUE = plain_jpeg((0, 0, 250))


def _count(api: Api, result: str) -> float:
    name = "simile_upload_embedding_cache_total"
    return api.telemetry.registry.get_sample_value(name, {"result": result}) or 0.0


async def test_the_same_bytes_are_embedded_once(api: Api) -> None:
    """A repeated image, as body or in a batch, gets the same answer without an embedder."""
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
    """A box has a vector of its own, which is cached, too."""
    for box in ("", "&box=0,0,0.5,0.5", "&box=0,0,0.5,0.5", "&box=0,0,0.4,0.5"):
        assert (await api.search(RED, f"/v1/search?k=2{box}")).status == 200
    assert len(api.embedder.embedded) == 3


async def test_other_parameters_use_the_same_vector(api: Api) -> None:
    """The vector depends on the image alone, so another k or page needs no embedder."""
    first = await api.search(RED, "/v1/search?k=2")
    second = await api.search(RED, f"/v1/search?k=3&cursor={first.json['next_cursor']}")
    assert len(second.json["neighbors"]) == 3
    assert api.embedder.embedded == [RED]


async def test_another_model_makes_a_vector_stale(api: Api) -> None:
    """When the index changes its model, the image is embedded again within the same request."""
    assert (await api.search(RED)).status == 200
    api.embedder.model_id = api.searcher.model_id = "another@0/pixels/8"
    for _ in range(2):
        again = await api.search(RED)
        assert again.json["model_id"] == "another@0/pixels/8"
    assert api.embedder.embedded == [RED, RED]
    assert (_count(api, "stale"), _count(api, "hit"), _count(api, "miss")) == (1, 2, 1)


class TestTurnedOff:
    """Tests a service without a cache."""

    @pytest.fixture
    def upload_settings(self) -> UploadSettings:
        """Return settings without a cache."""
        return UploadSettings(port=0, deadline_seconds=10, embedding_cache_bytes=0)

    async def test_every_image_is_embedded(self, api: Api) -> None:
        """The same image is embedded each time."""
        for _ in range(2):
            assert (await api.search(RED)).status == 200
        assert api.embedder.embedded == [RED, RED]
        assert not any(slip.return_vector for slip in api.searcher.slips)


async def test_equal_large_images_have_equal_keys() -> None:
    """Equal bytes give equal keys, also when a thread computes the hash."""
    memory = EmbeddingCache(10_000, Counter("any", "any", ["result"], registry=None))
    large = b"x" * (2**20 + 1)
    assert await memory.key(large, None) == await memory.key(bytes(large), None)
    assert await memory.key(large, None) != await memory.key(large[1:], None)
    assert await memory.key(large, Box(0, 0, 1, 1)) != await memory.key(large, None)


def _cache(vectors: int) -> EmbeddingCache:
    """Return a cache for that many vectors of 500 bytes, each with 500 bytes of overhead."""
    results = Counter("results", "", ["result"], registry=CollectorRegistry())
    return EmbeddingCache(1000 * vectors, results)


def _vector(size: int = 500) -> Vector:
    return Vector(MODEL, size // 4, bytes(size))


def test_the_least_recently_used_is_evicted() -> None:
    """The cache stays within its size, and keeps the vector that was used last."""
    cache = _cache(2)
    cache.put("one", _vector())
    cache.put("two", _vector())
    assert cache.get("one") == _vector()
    cache.put("three", _vector())
    assert cache.get("two") is None
    assert cache.get("one") == _vector()
    assert cache.held_bytes == 2000
    cache.put("one", _vector(100))
    assert cache.held_bytes == 1600
    cache.drop("nothing")


def test_a_vector_larger_than_the_cache_evicts_no_other() -> None:
    """A vector that can't fit is not stored, and the other vectors stay."""
    cache = _cache(1)
    cache.put("one", _vector())
    cache.put("huge", _vector(1000))
    assert cache.get("huge") is None
    assert cache.get("one") == _vector()
    cache.drop("one")
    assert cache.get("one") is None
    assert cache.held_bytes == 0


def test_a_cache_of_no_size_is_off() -> None:
    """SIMILE_UPLOAD_EMBEDDING_CACHE_BYTES=0 stores nothing."""
    cache = _cache(0)
    cache.put("one", _vector())
    assert (cache.on, cache.get("one"), cache.held_bytes) == (False, None, 0)

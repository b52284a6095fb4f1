"""Searches by many images: batches grow and shrink with the places that a Simile has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from services.clients.api import Answer, QueryImage
from services.clients.batches import MAX_WAIT_SECONDS, BatchSearch, Patience
from services.shared.errors import (
    ImageTooLarge,
    MalformedRequest,
    Overloaded,
    RateLimited,
    SimileError,
)
from tests.support.clock import Clock

LIMITS = {"max_batch_images": 4, "batch_max_bytes": 100}


class FakeSimile:
    """Answers batches of at most `places` images; refuses larger ones, or single images."""

    def __init__(self, places: int = 100, *, refuses_alone: bool = False) -> None:
        self.places = places
        self.refuses_alone = refuses_alone
        self.batches: list[list[str]] = []
        self.error: SimileError | None = None

    async def search_batch(
        self, images: Sequence[QueryImage], parameters: Mapping[str, str]
    ) -> Sequence[Answer]:
        """Answer with a result for each image."""
        assert parameters == {"k": "3"}
        self.batches.append([image.name for image in images])
        if self.error is not None:
            raise self.error
        if len(images) > self.places and not self.refuses_alone:
            error = Overloaded("full")
            error.retry_after_seconds = 7
            raise error
        return [
            {"name": None, "answer": {"number": number}}
            if number < self.places
            else {"name": None, "problem": {"code": "overloaded", "detail": "full"}}
            for number, _ in enumerate(images)
        ]


class Waiting:
    """A clock that a sleep moves on."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.slept: list[float] = []
        self.patience = Patience(self.clock, self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.now += seconds


def _images(count: int, size: int = 1) -> list[QueryImage]:
    return [QueryImage(str(number), content=b"x" * size) for number in range(count)]


async def _names(
    simile: FakeSimile, images: Sequence[QueryImage], waiting: Waiting | None = None
) -> list[str]:
    """Return the names of the answered images; the results carry the same names."""
    search = BatchSearch(simile, {"k": "3"}, LIMITS, (waiting or Waiting()).patience)
    outcomes = [outcome async for outcome in search.outcomes(images)]
    assert all(result["name"] == image.name for image, result in outcomes)
    return [image.name for image, result in outcomes if "answer" in result]


async def test_images_are_sent_in_batches_of_the_limit() -> None:
    """In their order, the last batch with the rest."""
    simile = FakeSimile()
    assert await _names(simile, _images(10)) == [str(number) for number in range(10)]
    assert [len(batch) for batch in simile.batches] == [4, 4, 2]


async def test_a_batch_has_at_most_so_many_bytes() -> None:
    """Larger images make smaller batches; an image over the limit is sent alone."""
    simile = FakeSimile()
    images = [*_images(3, size=40), QueryImage("large", content=b"x" * 200)]
    assert await _names(simile, images) == ["0", "1", "2", "large"]
    assert simile.batches == [["0", "1"], ["2"], ["large"]]


async def test_a_refused_batch_is_halved_and_waits_as_asked() -> None:
    """Every image is answered in the end; the pauses are those of Retry-After."""
    simile, waiting = FakeSimile(places=1), Waiting()
    assert sorted(await _names(simile, _images(3), waiting)) == ["0", "1", "2"]
    assert [len(batch) for batch in simile.batches[:2]] == [3, 1]
    assert set(waiting.slept) == {7}


async def test_images_that_are_refused_alone_are_sent_again() -> None:
    """A batch that is answered in part is not lost, and the next one is as large as that part."""
    simile = FakeSimile(places=2, refuses_alone=True)
    assert sorted(await _names(simile, _images(7))) == [str(number) for number in range(7)]
    assert len(simile.batches[0]) == 4
    assert len(simile.batches[1]) == 2


@pytest.mark.parametrize("error", [Overloaded("full"), RateLimited("too many")])
async def test_a_simile_that_stays_full_ends_the_search(error: SimileError) -> None:
    """The refusal is raised once nothing was answered for the bound."""
    simile, waiting = FakeSimile(), Waiting()
    simile.error = error
    with pytest.raises(type(error)):
        await _names(simile, _images(2), waiting)
    assert MAX_WAIT_SECONDS <= sum(waiting.slept) <= MAX_WAIT_SECONDS + 2


async def test_a_wrong_parameter_is_not_tried_again() -> None:
    """The error of the whole batch is raised at once."""
    simile = FakeSimile()
    simile.error = MalformedRequest("k must be a number")
    with pytest.raises(MalformedRequest):
        await _names(simile, _images(2))
    assert len(simile.batches) == 1


async def test_a_body_that_is_too_large_is_halved_down_to_one_image() -> None:
    """The image itself is too large then, and fails alone."""
    simile = FakeSimile()
    simile.error = ImageTooLarge("too many bytes")
    search = BatchSearch(simile, {"k": "3"}, LIMITS, Waiting().patience)
    outcomes = [result async for _, result in search.outcomes(_images(2))]
    assert [result["problem"]["code"] for result in outcomes] == ["image_too_large"] * 2


async def test_a_file_that_can_not_be_read_fails_alone(tmp_path: Path) -> None:
    """The others are searched by."""
    simile = FakeSimile()
    images = [QueryImage("gone", path=tmp_path / "gone.jpg"), *_images(2)]
    search = BatchSearch(simile, {"k": "3"}, LIMITS, Waiting().patience)
    outcomes = {image.name: result async for image, result in search.outcomes(images)}
    assert outcomes["gone"]["problem"]["code"] == "file_unusable"
    assert simile.batches == [["0", "1"]]

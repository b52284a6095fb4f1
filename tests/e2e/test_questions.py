"""Tests filters, pages, boxes, folding and batches on a running Simile with its real model."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image

from services.local.sample import draw_sample
from tests.support.running import simile_up

SEARCH = "/v1/search"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of a running Simile with the drawn sample collection."""
    folder = tmp_path_factory.mktemp("questions")
    with simile_up(folder / "up.log", "--root", str(folder)) as (url, _):
        yield url


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw pictures of the sample's classes that are not in the collection."""
    folder = tmp_path_factory.mktemp("unseen") / "images"
    draw_sample(folder, per_class=1, seed=99)
    return folder


async def _post(url: str, image: bytes, **asked: object) -> dict[str, Any]:
    parameters = {name: str(value) for name, value in asked.items()}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + SEARCH, data=image, params=parameters) as answer,
    ):
        body: dict[str, Any] = await answer.json()
        assert answer.status == 200, body
        return body


def _ids(answer: dict[str, Any]) -> list[str]:
    return [neighbor["item_id"] for neighbor in answer["neighbors"]]


def _labels(answer: dict[str, Any]) -> list[str]:
    return [neighbor["label"] for neighbor in answer["neighbors"]]


def _fish(unseen: Path) -> bytes:
    return (unseen / "fish" / "001.jpg").read_bytes()


async def test_a_filter_leaves_only_what_passes(url: str, unseen: Path) -> None:
    """A filter returns exactly the items of that label, nearest first."""
    wanted = json.dumps({"label": ["cactus", "city"]})
    answer = await _post(url, _fish(unseen), filter=wanted, k=100)
    assert set(_labels(answer)) == {"cactus", "city"}
    assert answer["matching"] == len(answer["neighbors"])
    assert answer["next_cursor"] is None
    distances = [neighbor["distance"] for neighbor in answer["neighbors"]]
    assert distances == sorted(distances)


async def test_pages_go_through_the_whole_collection(url: str, unseen: Path) -> None:
    """Each item is returned once, and the last page is marked as the last."""
    found, cursor = list[str](), dict[str, str]()
    while True:
        answer = await _post(url, _fish(unseen), k=100, **cursor)
        found += _ids(answer)
        if answer["next_cursor"] is None:
            break
        cursor = {"cursor": answer["next_cursor"]}
    assert len(found) == len(set(found)) == answer["matching"]


async def test_a_box_searches_by_its_content(url: str, unseen: Path) -> None:
    """In a picture of a fish beside a cactus, the box decides which class is found."""
    size = (300, 300)
    pictures = [Image.open(unseen / name / "001.jpg").resize(size) for name in ("fish", "cactus")]
    both = Image.new("RGB", (600, 300))
    for number, picture in enumerate(pictures):
        both.paste(picture, (300 * number, 0))
    out = io.BytesIO()
    both.save(out, "PNG")
    left = await _post(url, out.getvalue(), box="0,0,0.5,1")
    right = await _post(url, out.getvalue(), box="0.5,0,0.5,1")
    assert _labels(left).count("fish") >= 8
    assert _labels(right).count("cactus") >= 8


async def test_near_duplicates_are_folded(url: str, unseen: Path) -> None:
    """With a large fold distance one item represents many, and lists them."""
    plain = await _post(url, _fish(unseen), k=20)
    folded = await _post(url, _fish(unseen), k=20, collapse=0.6)
    named = {one for neighbor in folded["neighbors"] for one in neighbor["duplicates"]}
    assert named
    assert not named & set(_ids(folded))
    assert _ids(folded)[0] == _ids(plain)[0]


async def test_several_images_are_answered_in_one_request(url: str, unseen: Path) -> None:
    """Each image is answered by itself, in order; a file that is not an image fails alone."""
    form = aiohttp.FormData({"k": "5"})
    for name in ("fish", "cactus"):
        form.add_field("image", (unseen / name / "001.jpg").read_bytes(), filename=f"{name}.jpg")
    form.add_field("image", b"no image", filename="notes.txt")
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}{SEARCH}/batch", data=form) as answer,
    ):
        assert answer.status == 200
        fish, cactus, notes = (await answer.json())["results"]
    assert _labels(fish["answer"]).count("fish") >= 4
    assert _labels(cactus["answer"]).count("cactus") >= 4
    assert (notes["name"], notes["problem"]["code"]) == ("notes.txt", "unsupported_format")


async def test_a_search_by_item_takes_the_same_parameters(url: str, unseen: Path) -> None:
    """Pages and filters work for an item, too; the item itself is never in its results."""
    item = _ids(await _post(url, _fish(unseen), k=1))[0]
    async with aiohttp.ClientSession() as session:
        address = f"{url}/v1/items/sample/{item}/similar"
        first = await (await session.get(address, params={"k": "10"})).json()
        cursor = {"k": "10", "cursor": first["next_cursor"]}
        second = await (await session.get(address, params=cursor)).json()
        wanted = {"filter": '{"label": "cactus"}'}
        cacti = await (await session.get(address, params=wanted)).json()
    assert len({item, *_ids(first), *_ids(second)}) == 21
    assert set(_labels(cacti)) == {"cactus"}

"""A search has pages, filters, folding, and a box."""

from __future__ import annotations

import json

import pytest

from services.shared.contracts import Box, Filter
from services.shared.errors import Unsendable
from services.shared.messaging.broker import Message
from tests.support.volume import items, publish_version, unit_vectors
from tests.unit.upload.conftest import COUNT, Api, form_of, matches, refused


async def test_the_searcher_receives_the_callers_parameters(api: Api, picture: bytes) -> None:
    """Filter, distances and box arrive unchanged, from the query string or the form."""
    asked = {
        "k": "3",
        "max_distance": "0.5",
        "collapse": "0.25",
        "filter": json.dumps({"label": "crow", "attributes": {"sex": ["f", "m"]}}),
        "box": "0,0.25,0.5,0.75",
    }
    for answer in (
        await api.search(picture, params=asked),
        await api.ask("POST", "/v1/search", data=form_of(picture, **asked)),
    ):
        assert answer.status == 200
        matches("SearchAnswer", answer)
        slip, question = api.searcher.slips[-1], api.searcher.asked
        assert slip.box == Box(0, 0.25, 0.5, 0.75)
        assert question.filter == Filter(("crow",), {"sex": ("f", "m")})
        assert (question.collection, question.k) == ("birds", 3)
        assert (question.max_distance, question.collapse) == (0.5, 0.25)
        assert answer.json["neighbors"][0]["duplicates"] == [api.items[-1].item_id]


async def test_without_parameters_nothing_is_bounded_folded_or_left_out(
    api: Api, picture: bytes
) -> None:
    """By default an answer lists no duplicates, and a question has no filter."""
    answer = await api.search(picture)
    assert answer.json["neighbors"][0]["duplicates"] == []
    question = api.searcher.asked
    assert (question.max_distance, question.collapse, question.filter) == (None, None, None)
    assert (question.cursor, question.exclude, api.searcher.slips[-1].box) == ("", "", None)


async def test_pages_follow_one_another_to_the_end(api: Api, picture: bytes) -> None:
    """The same image with the cursor of each answer gives every item once, until the last page."""
    found, cursor = list[str](), dict[str, str]()
    while True:
        answer = await api.search(picture, params={"k": "5", **cursor})
        matches("SearchAnswer", answer)
        found += [neighbor["item_id"] for neighbor in answer.json["neighbors"]]
        if answer.json["next_cursor"] is None:
            break
        cursor = {"cursor": answer.json["next_cursor"]}
    assert found == [item.item_id for item in api.items]


async def test_a_cursor_of_an_older_index_has_expired(api: Api, picture: bytes) -> None:
    """A cursor of the version before gets 410."""
    first = await api.search(picture, params={"k": "5"})
    publish_version(
        api.volume, "birds", unit_vectors(COUNT), items(COUNT), images_root=api.images, number=1
    )
    cursor = first.json["next_cursor"]
    answer = await api.search(picture, params={"k": "5", "cursor": cursor})
    refused(answer, 410, "cursor_expired")


async def test_a_cursor_may_be_long(api: Api, picture: bytes) -> None:
    """8192 characters reach the searcher, by form and by query string, beside a long filter."""
    long = {"cursor": "a" * 8192, "filter": json.dumps({"label": "<" * 4000})}
    path = f"/v1/items/birds/{api.items[0].item_id}/similar"
    for answer in (
        await api.ask("POST", "/v1/search", data=form_of(picture, **long)),
        await api.get(path, params=long),
    ):
        refused(answer, 410, "cursor_expired")
        assert api.searcher.asked.cursor == long["cursor"]


@pytest.mark.parametrize(("name", "length"), [("cursor", 8193), ("filter", 4097), ("box", 1025)])
async def test_a_form_field_that_is_too_long_is_refused(
    api: Api, picture: bytes, name: str, length: int
) -> None:
    """Cursor and filter may be long, within their limits; other fields have a shorter limit."""
    answer = await api.ask("POST", "/v1/search", data=form_of(picture, **{name: "a" * length}))
    refused(answer, 400, "malformed_request")
    assert f"'{name}' has more than {length - 1} bytes" in answer.json["detail"]


async def test_an_image_that_the_broker_can_not_carry_is_too_large(
    api: Api, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When SIMILE_IMAGE_MAX_BYTES exceeds RabbitMQ's limit, the answer is 413."""

    async def too_large(queue: str, message: Message) -> None:
        del queue, message
        reason = "RabbitMQ takes messages of at most 9 bytes"
        raise Unsendable(reason)

    monkeypatch.setattr(api.broker, "publish", too_large)
    refused(await api.search(picture), 413, "image_too_large")


async def test_more_like_an_item_leaves_the_item_out(api: Api) -> None:
    """The item itself is not among its neighbours, and k others are found."""
    item = api.items[2]
    answer = await api.get(f"/v1/items/birds/{item.item_id}/similar?k=5")
    matches("SearchAnswer", answer)
    found = [neighbor["item_id"] for neighbor in answer.json["neighbors"]]
    assert len(found) == 5
    assert item.item_id not in found
    assert (api.searcher.asked.exclude, api.searcher.asked.k) == (item.item_id, 5)
    assert answer.json["matching"] == COUNT - 1
    assert api.embedder.embedded == []


async def test_more_like_an_item_can_be_filtered_folded_and_paged(api: Api) -> None:
    """Queries by item accept the parameters of a search that make sense for an item."""
    path = f"/v1/items/birds/{api.items[0].item_id}/similar"
    asked = {"k": "6", "max_distance": "1", "collapse": "0.5", "filter": '{"label": ["crow"]}'}
    first = await api.get(path, params=asked)
    second = await api.get(path, params={**asked, "cursor": first.json["next_cursor"]})
    matches("SearchAnswer", second)
    found = [one["item_id"] for page in (first, second) for one in page.json["neighbors"]]
    assert found == [item.item_id for item in api.items[1:]]
    question = api.searcher.asked
    assert (question.max_distance, question.collapse) == (1, 0.5)
    assert question.filter == Filter(("crow",))
    assert second.json["next_cursor"] is None

"""Lists of items have pages in a stable order, filters, vectors, and warnings."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from services.shared.volume.items import Item
from tests.support.volume import items, publish_version, unit_vectors
from tests.unit.upload.conftest import COUNT, Answer, Api, form_of, matches, refused

EVEN = json.dumps({"label": "image even"})


async def _page(api: Api, **params: str) -> Answer:
    answer = await api.get("/v1/items/birds", params=params)
    assert answer.status == 200, answer.json
    matches("Items", answer)
    return answer


async def _pages(api: Api, **params: str) -> list[Mapping[str, Any]]:
    """Return the answers of all pages."""
    pages = [(await _page(api, **params)).json]
    while cursor := pages[-1]["next_cursor"]:
        pages.append((await _page(api, **params, cursor=cursor)).json)
    return pages


def _ids(pages: list[Mapping[str, Any]]) -> list[str]:
    return [one["item_id"] for page in pages for one in page["items"]]


def _expected(*positions: int) -> list[str]:
    return [items(COUNT)[position].item_id for position in positions]


async def test_one_page_lists_a_small_collection(api: Api) -> None:
    """Without parameters the items come in the index's order, each with its facts."""
    answer = (await _page(api)).json
    assert _ids([answer]) == _expected(*range(COUNT))
    assert answer["matching"] == COUNT
    assert answer["next_cursor"] is None
    first = answer["items"][0]
    alone = (await api.get(f"/v1/items/birds/{first['item_id']}")).json
    assert {**alone, **first} == alone


@pytest.mark.parametrize("limit", ["1", "5", "6", "12", "13"])
async def test_pages_together_are_all_items(api: Api, limit: str) -> None:
    """No page repeats or skips an item, at any size, and no page is empty."""
    pages = await _pages(api, limit=limit)
    assert _ids(pages) == _expected(*range(COUNT))
    assert all(page["items"] for page in pages)


async def test_a_filter_selects_as_in_a_search(api: Api) -> None:
    """Labels and attributes select items on every page, and `matching` counts all of them."""
    pages = await _pages(api, filter=EVEN, limit="4")
    assert _ids(pages) == _expected(0, 2, 4, 6, 8, 10)
    assert [page["matching"] for page in pages] == [6, 6]
    both = json.dumps({"label": "image even", "attributes": {"number": ["2", "3", "10"]}})
    assert _ids(await _pages(api, filter=both)) == _expected(2, 10)


async def test_vectors_are_included_on_request(api: Api) -> None:
    """The pages with `vectors` export the collection; the vectors are those of the index."""
    pages = await _pages(api, vectors="true", limit="5")
    exported = np.array([one["vector"] for page in pages for one in page["items"]], "<f4")
    assert np.array_equal(exported, unit_vectors(COUNT))
    assert not any("vector" in one for one in (await _page(api)).json["items"])


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("limit=0", "limit must be a whole number from 1 to 1000"),
        ("limit=1001", "limit must be a whole number from 1 to 1000"),
        ("limit=101&vectors=true", "limit must be at most 100 with vectors"),
        ("vectors=yes", "vectors must be true or false"),
        ("filter=[]", "filter is not a JSON object"),
        ("cursor=abc", "the cursor is not one that a list of items gave"),
        ("cursor=%21", "cursor must be the next_cursor of an answer"),
        ("k=3", "unknown parameter 'k'"),
    ],
)
async def test_a_wrong_parameter_is_named(api: Api, query: str, detail: str) -> None:
    """The answer names the wrong parameter, and the values that the parameter accepts."""
    answer = await api.get(f"/v1/items/birds?{query}")
    refused(answer, 400, "malformed_request")
    assert detail in answer.json["detail"]


async def test_a_cursor_belongs_to_its_version_and_filter(api: Api) -> None:
    """With another filter a cursor is malformed, and after a new version the cursor has expired."""
    cursor = (await _page(api, limit="5")).json["next_cursor"]
    answer = await api.get("/v1/items/birds", params={"cursor": cursor, "filter": EVEN})
    refused(answer, 400, "malformed_request")
    publish_version(
        api.volume, "birds", unit_vectors(COUNT), items(COUNT), images_root=api.images, number=1
    )
    path = f"/v1/items/birds?cursor={cursor}"
    while (answer := await api.get(path)).status == 200:
        pass  # the collection is checked again after a moment
    refused(answer, 410, "cursor_expired")


@pytest.mark.parametrize("position", [COUNT + 1, 2**63 - 1, 2**63, 2**64 - 1])
async def test_a_forged_position_is_no_error(api: Api, position: int) -> None:
    """A cursor that was made by hand begins a page somewhere, and breaks nothing."""
    made = base64.urlsafe_b64decode((await _page(api, limit="5")).json["next_cursor"] + "==")
    forged = base64.urlsafe_b64encode(made[:8] + position.to_bytes(8, "big")).decode().rstrip("=")
    assert (await _page(api, cursor=forged)).status == 200


async def test_an_unknown_collection_has_no_items(api: Api) -> None:
    """The answer is the same as on every other route of that collection."""
    refused(await api.get("/v1/items/fish"), 404, "unknown_collection")


MISSPELT = [
    ({"label": "image evn"}, "no item has the label 'image evn'; did you mean 'image even'?"),
    ({"label": ["image odd", "zebra"]}, "no item has the label 'zebra'"),
    ({"attributes": {"Number": "3"}}, "no item has an attribute 'Number'; did you mean 'number'?"),
    ({"attributes": {"number": "103"}}, "no item has '103' as attribute 'number'; did you mean "),
    ({"label": "x" * 900}, f"no item has the label '{'x' * 60}'"),
]


async def _asked(api: Api, picture: bytes, text: str) -> list[Mapping[str, Any]]:
    """Return the answer of each route that takes a filter."""
    item: Item = api.items[0]
    search = await api.search(picture, params={"filter": text})
    similar = await api.get(f"/v1/items/birds/{item.item_id}/similar", params={"filter": text})
    batch = await api.ask("POST", "/v1/search/batch", data=form_of(picture, filter=text))
    matches("SearchAnswer", search)
    matches("BatchAnswer", batch)
    listed = await _page(api, filter=text)
    return [search.json, similar.json, batch.json["results"][0]["answer"], listed.json]


@pytest.mark.parametrize(("wanted", "warning"), MISSPELT)
async def test_a_value_that_no_item_has_causes_a_warning(
    api: Api, picture: bytes, wanted: Mapping[str, Any], warning: str
) -> None:
    """Every route that filters answers with a warning, and proposes a similar name."""
    for answer in await _asked(api, picture, json.dumps(wanted)):
        (given,) = answer["warnings"]
        assert given.startswith(warning)


async def test_a_filter_of_known_values_gives_no_warning(api: Api, picture: bytes) -> None:
    """No warning is given where items have every value, even if no item has all of them."""
    wanted = json.dumps({"label": "image even", "attributes": {"number": "3"}})
    for answer in await _asked(api, picture, wanted):
        assert answer["warnings"] == []
    assert (await api.search(picture)).json["warnings"] == []


async def test_at_most_ten_warnings_are_given(api: Api) -> None:
    """A filter of a hundred wrong values does not make a long answer."""
    wanted = json.dumps({"label": [f"wrong {number}" for number in range(100)]})
    answer = (await _page(api, filter=wanted)).json
    assert (len(answer["warnings"]), answer["matching"], answer["items"]) == (10, 0, [])

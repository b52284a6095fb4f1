"""An answer says when the collection has nothing close to the query."""

from __future__ import annotations

import pytest

from tests.unit.upload.conftest import Answer, Api, form_of, matches


async def _answers(api: Api, picture: bytes) -> list[Answer]:
    """Return the answer of each route whose neighbours are those of a query."""
    item = api.items[0].item_id
    return [await api.search(picture), await api.get(f"/v1/items/birds/{item}/similar")]


@pytest.mark.parametrize("close_above", [None, 0.5, 0.94, 1.0])
async def test_a_nearest_item_below_the_threshold_is_no_close_match(
    api: Api, picture: bytes, close_above: float | None
) -> None:
    """The threshold is in the answer; an older searcher sends none, and nothing is called distant.

    The nearest items have similarities of 1 and .95; of those that are alike the first is left out.
    """
    api.searcher.close_above = close_above
    search, similar = await _answers(api, picture)
    for answer in (search, similar):
        matches("SearchAnswer", answer)
        assert answer.json["close_above"] == close_above
    assert similar.json["no_close_match"] is (close_above == 1.0)
    assert search.json["no_close_match"] is False
    batch = await api.ask("POST", "/v1/search/batch", data=form_of(picture))
    matches("BatchAnswer", batch)
    assert batch.json["results"][0]["answer"]["close_above"] == close_above


async def test_an_answer_without_neighbours_has_no_close_match(api: Api, picture: bytes) -> None:
    """Where a bound or a filter leaves nothing, nothing is close."""
    api.searcher.close_above, api.searcher.leaves_out_all = 0.5, True
    answer = await api.search(picture)
    assert answer.json["neighbors"] == []
    assert answer.json["no_close_match"] is True


async def test_later_pages_say_nothing_of_the_nearest_item(api: Api, picture: bytes) -> None:
    """The second page begins with farther items, whatever the first one had."""
    api.searcher.close_above = 0.9
    cursor = (await api.search(picture, params={"k": "5"})).json["next_cursor"]
    answer = await api.search(picture, params={"k": "5", "cursor": cursor})
    assert answer.json["neighbors"][0]["similarity"] < 0.9
    assert answer.json["no_close_match"] is False

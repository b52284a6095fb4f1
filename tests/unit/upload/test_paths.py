"""Answers name the file of each item, unless a setting hides the files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from services.upload.settings import UploadSettings
from tests.unit.upload.conftest import Api, form_of


async def _listed(api: Api, picture: bytes) -> Mapping[str, list[Mapping[str, Any]]]:
    """Return the items that each kind of answer describes."""
    item = f"/v1/items/birds/{api.items[3].item_id}"
    search, similar = await api.search(picture), await api.get(f"{item}/similar")
    batch = await api.ask("POST", "/v1/search/batch", data=form_of(picture))
    sample, one = await api.get("/v1/collections/birds/sample?count=5"), await api.get(item)
    return {
        "search": search.json["neighbors"],
        "similar": similar.json["neighbors"],
        "batch": batch.json["results"][0]["answer"]["neighbors"],
        "sample": sample.json["items"],
        "item": [one.json],
    }


async def test_every_answer_names_the_files_of_its_items(api: Api, picture: bytes) -> None:
    """The path is relative to the collection's folder; attributes are in each answer, too."""
    by_id = {item.item_id: item for item in api.items}
    for kind, described in (await _listed(api, picture)).items():
        assert described, kind
        for one in described:
            assert one["path"] == by_id[one["item_id"]].path, kind
            assert one["attributes"] == by_id[one["item_id"]].attributes, kind


class TestHidden:
    """Tests a service with SIMILE_UPLOAD_SHOW_PATHS=false."""

    @pytest.fixture
    def upload_settings(self) -> UploadSettings:
        """Return settings that hide paths."""
        return UploadSettings(port=0, deadline_seconds=10, show_paths=False)

    async def test_no_answer_names_a_file(self, api: Api, picture: bytes) -> None:
        """The key is absent, rather than empty."""
        for kind, described in (await _listed(api, picture)).items():
            assert described, kind
            assert not any("path" in one for one in described), kind


async def test_an_answer_of_an_older_searcher_has_no_paths(api: Api, picture: bytes) -> None:
    """A searcher of the release before sends no paths, and the key is absent."""
    api.searcher.sends_paths = False
    answer = await api.search(picture)
    assert len(answer.json["neighbors"]) == 10
    assert not any("path" in one for one in answer.json["neighbors"])

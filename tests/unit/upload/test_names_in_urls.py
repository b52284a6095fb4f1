"""Collections whose names have letters of other scripts, over HTTP."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.support.volume import items, publish_version, unit_vectors
from tests.unit.upload.conftest import Api


@pytest.mark.parametrize("name", ["фото", "写真", "été", "चित्र"])
async def test_a_collection_is_found_by_its_name(api: Api, name: str) -> None:
    """In the path, percent-encoded as clients send it; the answer's URLs lead to the image."""
    publish_version(api.volume, name, unit_vectors(3), items(3), images_root=api.images)
    listed = (await api.get("/v1/collections")).json
    assert name in {one["name"] for one in listed["collections"]}
    found = await api.get(f"/v1/items/{quote(name)}/{items(3)[1].item_id}")
    assert found.status == 200
    assert found.json["image_url"].isascii()
    assert (await api.get(found.json["image_url"])).status == 200
    assert (await api.get(f"/v1/collections/{quote(name)}/facets")).status == 200

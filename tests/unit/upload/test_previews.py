"""Larger thumbnails, and previews of images that browsers do not show."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from tests.support.pictures import encoded, scene
from tests.unit.upload.conftest import Api, form_of, refused


def _size(image: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(image)) as opened:
        assert opened.format == "JPEG"
        return opened.size


async def test_a_thumbnail_can_be_larger(api: Api) -> None:
    """Each size has an ETag of its own; a smaller image is not enlarged."""
    path = f"/v1/items/birds/{api.items[1].item_id}/thumbnail"
    usual, middle, large = [
        await api.get(path + query) for query in ("", "?size=640", "?size=2048")
    ]
    assert [max(_size(one.body)) for one in (usual, middle, large)] == [320, 600, 600]
    assert len({one.headers["ETag"] for one in (usual, middle, large)}) == 3
    tag = {"If-None-Match": middle.headers["ETag"]}
    assert (await api.get(f"{path}?size=640", headers=tag)).status == 304
    assert (await api.get(f"{path}?size=2048", headers=tag)).status == 200


async def test_other_sizes_are_refused(api: Api) -> None:
    """Few sizes, so that callers can't fill the cache with copies."""
    path = f"/v1/items/birds/{api.items[1].item_id}/thumbnail"
    answer = await api.get(f"{path}?size=641")
    refused(answer, 400, "malformed_request")
    assert "size must be one of 320, 640, 1280, 2048" in answer.json["detail"]
    refused(await api.get(f"{path}?width=640"), 400, "malformed_request")


@pytest.mark.parametrize("name", ["HEIF", "TIFF", "JPEG2000", "AVIF"])
async def test_a_preview_of_what_browsers_do_not_show_is_a_jpeg(api: Api, name: str) -> None:
    """Sent as the body or in a form; at most as large as asked for."""
    image = encoded(scene(900, 600), name)
    answer = await api.search(image, "/v1/preview?size=640")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/jpeg")
    assert _size(answer.body) == (640, 427)
    form = await api.ask("POST", "/v1/preview", data=form_of(image))
    assert _size(form.body) == (900, 600)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
async def test_a_preview_of_what_every_browser_shows_is_the_image(api: Api, name: str) -> None:
    """The service itself decodes no image of a stranger."""
    image = encoded(scene(), name)
    answer = await api.search(image, "/v1/preview")
    assert (answer.body, answer.headers["Content-Type"]) == (image, f"image/{name.lower()}")


async def test_a_preview_of_no_image_is_refused(api: Api) -> None:
    """As a search by it would be; an address is not fetched for it."""
    refused(await api.search(b"no image", "/v1/preview"), 415, "unsupported_format")
    broken = encoded(scene(900, 600), "TIFF")[:4000]
    refused(await api.search(broken, "/v1/preview"), 422, "undecodable_image")
    by_address = await api.ask("POST", "/v1/preview?image_url=http://images.example/cat.jpg")
    refused(by_address, 400, "malformed_request")

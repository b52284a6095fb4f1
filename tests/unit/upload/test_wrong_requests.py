"""The mistakes of the first hour with the API: each is answered with what to do instead."""

from __future__ import annotations

import gzip
import io
from collections.abc import Mapping

import aiohttp
import pytest

from tests.support.pictures import plain_jpeg
from tests.unit.upload.conftest import Answer, Api, form_of, matches, refused

PICTURE = plain_jpeg((20, 120, 220))
SEARCH, BATCH, EMBED = "/v1/search", "/v1/search/batch", "/v1/embed"
URL_ENCODED = {"Content-Type": "application/x-www-form-urlencoded"}
FORM = (
    b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
    b"Content-Type: image/jpeg\r\n\r\n" + PICTURE + b"\r\n--x--\r\n"
)


def _with_file(
    name: str, filename: str | None = "cat.jpg", media_type: str = ""
) -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field(name, io.BytesIO(PICTURE), filename=filename, content_type=media_type or None)
    return form


def _detail(answer: Answer) -> str:
    """Return the problem's detail; the problem has the schema of all problems."""
    matches("Problem", answer)
    detail: str = answer.json["detail"]
    return detail


@pytest.mark.parametrize("path", [SEARCH, BATCH, EMBED])
@pytest.mark.parametrize("name", ["file", "files", "image[]", "images", "photo", "upload"])
async def test_a_file_in_another_field_is_pointed_to_its_own(
    api: Api, path: str, name: str
) -> None:
    """`curl -F file=@cat.jpg` learns the name of the field, on every route that takes images."""
    answer = await api.ask("POST", path, data=_with_file(name))
    refused(answer, 400, "malformed_request")
    assert _detail(answer) == (
        f"the form field of an image is called 'image', not '{name}': curl -F image=@FILE"
    )


async def test_an_image_without_a_file_name_is_recognised_too(api: Api) -> None:
    """HTTP libraries may send the bytes with a type and without a name."""
    answer = await api.ask("POST", SEARCH, data=_with_file("photo", None, "image/jpeg"))
    assert "is called 'image', not 'photo'" in _detail(answer)


BODIES: list[tuple[bytes, Mapping[str, str], int, str]] = [
    (gzip.compress(PICTURE), {}, 415, "the image is compressed with gzip; send the bytes"),
    (PICTURE, {"Content-Encoding": "gzip"}, 415, "has Content-Encoding: 'gzip'; send it as it is"),
    (b"PK\x03\x04" + bytes(60), {}, 415, "the bytes are a ZIP archive; send its images"),
    (
        b"\x89PNG\x1a" + bytes(60),
        URL_ENCODED,
        415,
        "lost the ends of its lines; with curl",
    ),
    (FORM, {}, 400, "is a multipart form, but its Content-Type is 'application/octet-stream'"),
    (FORM, {"Content-Type": "multipart/form-data"}, 400, "set no Content-Type yourself"),
    (b"image=@cat.jpg", URL_ENCODED, 415, "the body is a URL-encoded form; send the bytes"),
    (b"image=%FF%D8%FF%E0&k=3", URL_ENCODED, 415, "the body is a URL-encoded form; send the bytes"),
    (b"https://images.example/cat.jpg", {}, 415, "send it as the parameter image_url"),
    (b"@images/photos/cat.jpg", {}, 415, "the image is the text '@images/photos/cat.jpg'"),
    (b"<!DOCTYPE html><html><body>Sign in", {}, 415, "the bytes are an HTML page, no image"),
    (b"", {}, 400, "send the image as the body, or as the form field 'image'"),
]


@pytest.mark.parametrize("path", [SEARCH, EMBED])
@pytest.mark.parametrize(("body", "headers", "status", "detail"), BODIES)
async def test_a_body_that_is_no_image_is_recognised(
    api: Api, path: str, body: bytes, headers: Mapping[str, str], status: int, detail: str
) -> None:
    """The answer says what the body is, and how to send an image."""
    answer = await api.ask("POST", path, data=io.BytesIO(body), headers=headers)
    assert answer.status == status
    assert detail in _detail(answer)
    assert api.embedder.embedded == []


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b"images/photos/cat.jpg", "the image is the text 'images/photos/cat.jpg'; send the bytes"),
        (b"https://images.example/cat.jpg", "send it as the parameter image_url"),
        (gzip.compress(PICTURE), "the image is compressed with gzip"),
        (b"data:image/png,%89PNG", "the data URL must be of the form"),
    ],
)
async def test_a_form_field_that_is_no_image_is_recognised(
    api: Api, content: bytes, detail: str
) -> None:
    """`-F image=cat.jpg` without the `@` sends the name; in a batch such an image fails alone."""
    alone = await api.ask("POST", SEARCH, data=form_of(content))
    assert detail in _detail(alone)
    batch = await api.ask("POST", BATCH, data=form_of(content, PICTURE))
    matches("BatchAnswer", batch)
    wrong, sound = batch.json["results"]
    assert detail in wrong["problem"]["detail"]
    assert "answer" in sound


async def test_two_images_are_pointed_to_batches(api: Api) -> None:
    """A query has a single image."""
    answer = await api.ask("POST", SEARCH, data=form_of(PICTURE, PICTURE))
    refused(answer, 400, "malformed_request")
    assert "POST /v1/search/batch takes several images" in _detail(answer)


async def test_json_for_a_batch_is_pointed_to_forms(api: Api) -> None:
    """A batch takes a form alone; one image may be JSON."""
    answer = await api.ask("POST", BATCH, json={"images": ["YWJj"]})
    refused(answer, 400, "malformed_request")
    assert "send a multipart form with a field 'image' for each image" in _detail(answer)


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("/search", "/v1/search"),
        ("/search/batch", "/v1/search/batch"),
        ("/v1/search/", "/v1/search"),
        ("/v1/serach", "/v1/search"),
        ("/v1/batch", "/v1/search/batch"),
        ("/v1/embedding", "/v1/embed"),
        ("/collections", "/v1/collections"),
        ("/v1/collections/", "/v1/collections"),
        ("/v1/collection", "/v1/collections"),
        ("/v1/items/birds/", "/v1/items/birds"),
        ("/collections/birds/facets", "/v1/collections/birds/facets"),
        ("/openapi", "/openapi.json"),
    ],
)
async def test_a_wrong_path_is_answered_with_a_similar_one(api: Api, path: str, near: str) -> None:
    """A slash at the end, a forgotten /v1, or a slip of the fingers."""
    for method in ("GET", "POST"):
        answer = await api.ask(method, path)
        refused(answer, 404, "unknown_route")
        assert f"nothing is at {path}; did you mean {near}?" in _detail(answer)


@pytest.mark.parametrize("path", ["/nothing/of/the/kind", "/%FF%00", "/" + "x" * 9000, "//", "/?a"])
async def test_a_path_that_is_like_none_is_answered_without_a_guess(api: Api, path: str) -> None:
    """The answer names the list of routes, and is short."""
    answer = await api.ask("POST", path)
    assert answer.status in {404, 405}
    assert "GET /openapi.json lists the routes" in _detail(answer)
    assert len(_detail(answer)) < 400


@pytest.mark.parametrize(
    ("method", "path", "detail"),
    [
        ("GET", SEARCH, "/v1/search takes POST, not GET"),
        ("PUT", EMBED, "/v1/embed takes POST, not PUT"),
        ("POST", "/v1/collections", "/v1/collections takes GET or HEAD, not POST"),
        ("DELETE", "/v1/items/birds", "/v1/items/birds takes GET or HEAD, not DELETE"),
    ],
)
async def test_a_wrong_method_is_answered_with_the_right_one(
    api: Api, method: str, path: str, detail: str
) -> None:
    """The header Allow is there for programs, the sentence for people."""
    answer = await api.ask(method, path)
    refused(answer, 405, "method_not_allowed")
    assert detail in _detail(answer)
    assert set(answer.headers["Allow"].split(",")) <= set(detail.replace(",", "").split())


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("k=0", "k must be a whole number from 1 to 100, not '0'"),
        ("k=abc", "k must be a whole number from 1 to 100, not 'abc'"),
        ("top_k=3", "unknown parameter 'top_k'; this address takes: box, collapse"),
        ("max_distnace=1", "unknown parameter 'max_distnace'; did you mean max_distance?"),
        ("colection=birds", "unknown parameter 'colection'; did you mean collection?"),
    ],
)
async def test_a_wrong_parameter_is_answered_with_what_it_takes(
    api: Api, query: str, detail: str
) -> None:
    """The range of a number, or the name that was probably meant."""
    answer = await api.search(PICTURE, f"{SEARCH}?{query}")
    refused(answer, 400, "malformed_request")
    assert detail in _detail(answer)

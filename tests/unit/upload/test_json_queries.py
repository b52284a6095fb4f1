"""Queries in JSON: an image as base64 or data URL, an address, or a vector, and the parameters."""

from __future__ import annotations

import base64
import io
import json
import tracemalloc
from typing import Any

import pytest

from services.shared.contracts import Box, Filter, Question
from services.upload.query import json_body
from services.upload.settings import UploadSettings
from tests.support.pictures import plain_jpeg
from tests.support.volume import DIMENSION, unit_vectors
from tests.unit.upload.conftest import Answer, Api, form_of, matches, refused

SEARCH, EMBED = "/v1/search", "/v1/embed"
VECTOR = [0.0, 3.0, 0.0, -4.0, *[0.0] * (DIMENSION - 4)]


async def _post(api: Api, query: Any, path: str = SEARCH, **options: Any) -> Answer:
    """POST an object, or a text as it is, as JSON."""
    text = query if isinstance(query, str | bytes) else json.dumps(query)
    content = io.BytesIO(text if isinstance(text, bytes) else text.encode())
    headers = {"Content-Type": "application/json"}
    return await api.ask("POST", path, data=content, headers=headers, **options)


def _texts(picture: bytes) -> dict[str, str]:
    """Return the ways in which libraries write an image as text."""
    plain = base64.b64encode(picture).decode()
    return {
        "base64": plain,
        "unpadded": plain.rstrip("="),
        "url-safe": base64.urlsafe_b64encode(picture).decode(),
        "wrapped": base64.encodebytes(picture).decode(),
        "data": f"data:image/png;base64,{plain}",
        "data-parameters": f"data:image/png;name=a.png;base64,{plain}",
    }


WAYS = [*_texts(b"")]


@pytest.mark.parametrize("way", WAYS)
async def test_an_image_in_json_is_searched_by(api: Api, picture: bytes, way: str) -> None:
    """The embedder gets the bytes of the image, however they were written."""
    answer = await _post(api, {"image": _texts(picture)[way], "k": 3})
    matches("SearchAnswer", answer)
    assert len(answer.json["neighbors"]) == 3
    assert api.embedder.embedded == [picture]


@pytest.mark.parametrize("way", WAYS)
async def test_an_encoded_image_is_accepted_in_other_bodies(
    api: Api, picture: bytes, way: str
) -> None:
    """A body or a form field may hold the text that a browser's script has of an image."""
    text = _texts(picture)[way].encode()
    for answer in (
        await api.search(text),
        await api.ask("POST", SEARCH, data=form_of(text, k="3")),
        await api.ask("POST", "/v1/search/batch", data=form_of(text)),
        await api.search(text, EMBED),
    ):
        assert answer.status == 200, answer.json
    assert api.embedder.embedded[0] == picture
    assert set(api.embedder.embedded) == {picture}


async def test_the_content_type_may_be_forgotten(api: Api, picture: bytes) -> None:
    """A body that begins with a brace is JSON: curl -d sends another type."""
    text = json.dumps({"image": base64.b64encode(picture).decode(), "k": 2})
    for media_type in ("application/x-www-form-urlencoded", "text/plain", "application/ld+json"):
        body = ("\n " + text).encode()
        answer = await api.search(body, headers={"Content-Type": media_type})
        assert len(answer.json["neighbors"]) == 2


async def test_an_image_with_a_wrong_content_type_stays_an_image(api: Api, picture: bytes) -> None:
    """The bytes of a picture that is called JSON are searched by as before."""
    answer = await _post(api, picture)
    assert answer.status == 200
    assert api.embedder.embedded == [picture]


async def test_members_are_the_parameters(api: Api, picture: bytes) -> None:
    """Numbers, lists and objects mean the same as the texts of a form; null means absent."""
    members = {
        "image": base64.b64encode(picture).decode(),
        "collection": "birds",
        "k": 7,
        "max_distance": 0.5,
        "collapse": None,
        "filter": {"label": ["crow"], "attributes": {"number": "3"}},
        "box": [0, 0.25, 0.5, 0.75],
    }
    answer = await _post(api, members, f"{SEARCH}?k=5")
    assert answer.status == 200
    wanted = Filter(("crow",), {"number": ("3",)})
    asked = Question(collection="birds", k=5, max_distance=0.5, filter=wanted)
    assert api.searcher.asked == asked
    assert api.searcher.slips[-1].box == Box(0, 0.25, 0.5, 0.75)


async def test_a_vector_is_searched_by_without_an_embedder(api: Api) -> None:
    """The searcher gets the vector at unit length, and the parameters; pages follow."""
    answer = await _post(api, {"vector": VECTOR, "k": 5, "filter": {"label": "image even"}})
    matches("SearchAnswer", answer)
    assert len(answer.json["neighbors"]) == 5
    assert api.embedder.embedded == []
    scaled = api.searcher.vectors[-1]
    assert scaled == pytest.approx([0.0, 0.6, 0.0, -0.8, *[0.0] * (DIMENSION - 4)])
    assert api.searcher.asked.filter == Filter(("image even",))
    cursor = answer.json["next_cursor"]
    query = {"vector": VECTOR, "k": 5, "filter": {"label": "image even"}, "cursor": cursor}
    assert len((await _post(api, query)).json["neighbors"]) == 5


@pytest.mark.parametrize("length", [1e-30, 1e-5, 1.0, 1e30])
async def test_a_vector_may_have_any_length(api: Api, length: float) -> None:
    """Very short and very long vectors point somewhere, too."""
    unit = unit_vectors(1)[0].tolist()
    answer = await _post(api, {"vector": [length * number for number in unit]})
    assert answer.status == 200
    assert api.searcher.vectors[-1] == pytest.approx(unit, abs=1e-6)


async def test_the_vector_of_an_image_finds_what_the_image_finds(api: Api, picture: bytes) -> None:
    """The answer of POST /v1/embed can be sent back as a query."""
    embedded = await api.search(picture, EMBED)
    answer = await _post(api, {"vector": embedded.json["vector"]})
    assert answer.status == 200
    assert api.searcher.vectors[-1] == pytest.approx(embedded.json["vector"], abs=1e-6)


class TestByAddress:
    """With image_url not allowed, as by default."""

    @pytest.mark.parametrize("path", [SEARCH, EMBED])
    async def test_an_address_in_json_is_a_parameter(self, api: Api, path: str) -> None:
        """The address passes the same check as the address of a form."""
        answer = await _post(api, {"image_url": "https://images.example/a.png"}, path)
        refused(answer, 400, "url_not_allowed")


WRONG = [
    ("", 400, "send the image as the body"),
    ("{}", 400, "send the image as the body"),
    ('{"image": ""}', 400, "send the image as the body"),
    ('{"image": null}', 400, "send the image as the body"),
    ('{"image": "%%%"}', 400, "is not base64"),
    ('{"image": "YWJjZA==YWJj"}', 400, "is not base64"),
    ('{"image": "cat.jpg"}', 400, "is not base64"),
    ('{"image": "é"}', 400, "image must be a text: the bytes of the image in base64"),
    ('{"image": 3}', 400, "image must be a text: the bytes of the image in base64"),
    ('{"image": ["YWJj"]}', 400, "image must be a text: the bytes of the image in base64"),
    ('{"image": "data:image/png,abc"}', 400, "must be of the form data:image/jpeg;base64,"),
    ('{"image": "https://a.example/b.png"}', 400, "send an address as image_url"),
    ('{"image": "YWJj", "vector": [1]}', 400, "send image or vector, not both"),
    ('{"vector": [1], "image_url": "a"}', 400, "send image or image_url or vector, not both"),
    ('{"images": ["YWJj"]}', 400, "unknown parameter 'images'; did you mean image?"),
    ('{"img": "YWJj"}', 400, "unknown parameter 'img'; did you mean image?"),
    ('{"vector": []}', 400, "vector must be a JSON list of finite numbers"),
    ('{"vector": [1, "2"]}', 400, "vector must be a JSON list of finite numbers"),
    ('{"vector": [1, true]}', 400, "vector must be a JSON list of finite numbers"),
    ('{"vector": [NaN]}', 400, "vector must be a JSON list of finite numbers"),
    ('{"vector": [1e999]}', 400, "vector must be a JSON list of finite numbers"),
    ('{"vector": [[1]]}', 400, "vector must be a JSON list of finite numbers"),
    ('{"vector": {"a": 1}}', 400, "vector must be a JSON list of finite numbers"),
    ('{"vector": "abc"}', 400, "vector must be a JSON list of finite numbers"),
    ('{"vector": [1, 2, 3]}', 400, f"vector has 3 numbers, those of 'birds' have {DIMENSION}"),
    (f'{{"vector": {[0] * DIMENSION}}}', 400, "vector has only zeros"),
    (f'{{"vector": {VECTOR}, "box": [0, 0, 1, 1]}}', 400, "leave it out of a search by vector"),
    ('{"image": "YWJj", "k": 0}', 400, "k must be a whole number from 1 to 100"),
    ('{"image": "YWJj", "k": true}', 400, "k must be a whole number from 1 to 100"),
    ('{"image": "YWJj", "k": {"a": 1}}', 400, "k must be a whole number from 1 to 100"),
    ('{"image": "YWJj", "filter": {"label": []}}', 400, "filter has no text or list"),
    ('{"image": "YWJj", "k": 1, "k": 2}', 400, "has a member twice"),
    ('{"image": "YWJj"', 400, "is no JSON that can be read"),
    ('{"a":' * 5000, 400, "nested too deeply"),
    ("[1, 2]", 415, "the image is the text '[1, 2]'"),
    ('{"image": "YWJj"}', 415, "the bytes are no image"),
]


@pytest.mark.parametrize(("text", "status", "detail"), WRONG)
async def test_a_wrong_query_says_what_to_send(
    api: Api, text: str, status: int, detail: str
) -> None:
    """The answer names the member, and says what it must be."""
    answer = await _post(api, text.encode())
    assert answer.status == status
    matches("Problem", answer)
    assert detail in answer.json["detail"]
    assert api.embedder.embedded == []


async def test_an_embedding_takes_no_vector(api: Api) -> None:
    """POST /v1/embed makes vectors, and takes images alone."""
    answer = await _post(api, {"vector": VECTOR}, EMBED)
    refused(answer, 400, "malformed_request")
    assert "unknown parameter 'vector'" in answer.json["detail"]


class TestLargeImages:
    """Images that need many blocks."""

    @pytest.fixture
    def upload_settings(self) -> UploadSettings:
        """Settings that let no vector be remembered."""
        return UploadSettings(port=0, embedding_cache_bytes=0)

    @pytest.mark.parametrize("escape", ["", "\\/", "\\n"])
    async def test_a_large_image_is_taken_out_of_the_object(self, api: Api, escape: str) -> None:
        """Members may stand on both sides of it; escapes that writers add are undone."""
        # Bytes after a JPEG's end are no part of the picture: they make it large.
        large = plain_jpeg((3, 2, 1)) + bytes(range(256)) * 8192
        text = base64.b64encode(large).decode()
        text = text.replace("/", escape) if escape == "\\/" else f"{escape}{text}{escape}"
        answer = await _post(api, f'{{"k": 2, "image": "{text}", "collection": "birds"}}')
        assert answer.status == 200, answer.json
        assert len(answer.json["neighbors"]) == 2
        assert api.embedder.embedded == [large]

    async def test_as_large_an_image_as_a_body_may_be_is_accepted(self, api: Api) -> None:
        """Base64 makes a body larger, but the limit is that of the image, to the byte."""
        start, limit = plain_jpeg((3, 2, 1)), 15 * 2**20
        most = start + bytes(limit - len(start))
        data = {"image": f"data:image/jpeg;base64,{base64.b64encode(most).decode()}"}
        assert (await _post(api, data)).status == 200
        data = {"image": base64.b64encode(most + b"x").decode()}
        refused(await _post(api, data), 413, "image_too_large")


@pytest.mark.parametrize(
    "text",
    [
        b'{"image": "' + b"A" * 700_000 + b'", "vector": [' + b"1.5," * 200_000 + b"1]}",
        b'{"a": [' + b"{}," * 300_000 + b'{}], "image": "YWJj"}',
        b'{"a": "' + b"A" * 700_000 + b'", "image": "YWJj"}',
        b'{"a": {"image": "' + b"A" * 700_000 + b'"}, "image": "YWJj"}',
        b'"image": "' * 100_000,
        b'{"image":"' + b"\\" * 700_000,
    ],
    ids=["vector", "objects", "text", "nested", "many", "open"],
)
def test_a_large_object_takes_little_memory(text: bytes) -> None:
    """However many values it holds: what is not the image is refused before it is parsed."""
    content = bytearray(text)
    tracemalloc.start()
    try:
        with pytest.raises(Exception, match=r"JSON body|no JSON"):
            json_body.read_json_query(content)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(text)
    finally:
        tracemalloc.stop()

"""The images of a batch are answered or refused independently."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from services.shared.contracts import Box, Failure, Filter
from services.shared.lifecycle import cancel
from services.upload.settings import UploadSettings
from tests.support.pictures import plain_jpeg, png
from tests.unit.upload.conftest import Answer, Api, form_of, matches, refused

BATCH = "/v1/search/batch"
PICTURES = [plain_jpeg((90, 40 * number, 20)) for number in range(4)]


async def _batch(api: Api, *images: bytes, **fields: str) -> Answer:
    return await api.ask("POST", BATCH, data=form_of(*images, **fields))


def _metric(api: Api, name: str, **labels: str) -> float:
    return api.telemetry.registry.get_sample_value(f"simile_upload_{name}", labels) or 0


async def test_each_image_is_answered_in_the_order_of_the_form(api: Api) -> None:
    """Each image has a result with its file's name and a query id of its own."""
    answer = await _batch(api, *PICTURES, k="3")
    assert answer.status == 200
    matches("BatchAnswer", answer)
    results = answer.json["results"]
    assert [result["name"] for result in results] == ["0.png", "1.png", "2.png", "3.png"]
    assert all(len(result["answer"]["neighbors"]) == 3 for result in results)
    ids = {result["answer"]["query_id"] for result in results}
    assert len(ids) == 4
    assert answer.json["query_id"] not in ids
    assert {slip.correlation_id for slip in api.searcher.slips} == ids
    assert sorted(api.embedder.embedded) == sorted(PICTURES)
    assert _metric(api, "batch_images_total", code="ok") == 4


async def test_every_image_has_the_same_parameters(api: Api) -> None:
    """Parameters in the query string and the form apply to the whole batch."""
    form = form_of(*PICTURES[:2], collapse="0.5", box="0,0,0.5,1", k="9")
    answer = await api.ask("POST", f'{BATCH}?k=2&filter={{"label":"crow"}}', data=form)
    assert answer.status == 200
    for slip in api.searcher.slips:
        assert (slip.question.k, slip.question.collapse) == (2, 0.5)
        assert slip.question.filter == Filter(("crow",))
        assert slip.box == Box(0, 0, 0.5, 1)


async def test_a_bad_image_fails_alone(api: Api) -> None:
    """A bad image has a problem in its place, with the code of a single query."""
    api.embedder.failing[PICTURES[1]] = Failure("box_too_small", "the box is 1 x 1 pixels")
    large = bytes(16 * 2**20)
    bad = [b"", b"this is text", b"\xff\xd8\xff\xe0", png(30_000, 30_000, 8, 2, []), large]
    answer = await _batch(api, PICTURES[0], *bad, PICTURES[1], PICTURES[2])
    assert answer.status == 200
    matches("BatchAnswer", answer)
    results = answer.json["results"]
    assert [result.get("problem", {}).get("code") for result in results] == [
        None, "empty_image", "unsupported_format", "undecodable_image", "too_many_pixels",
        "image_too_large", "box_too_small", None,
    ]  # fmt: skip
    assert results[6]["problem"]["detail"] == "the box is 1 x 1 pixels"
    assert len({result["problem"]["correlation_id"] for result in results[1:7]}) == 6
    assert _metric(api, "batch_images_total", code="image_too_large") == 1


async def test_a_part_without_a_file_name_has_none(api: Api) -> None:
    """The name of a result is null where the form gave none."""
    form = aiohttp.MultipartWriter("form-data")
    form.append(PICTURES[0]).set_content_disposition("form-data", name="image")
    answer = await api.ask("POST", BATCH, data=form)
    matches("BatchAnswer", answer)
    assert answer.json["results"][0]["name"] is None


async def test_an_invalid_batch_is_refused(api: Api) -> None:
    """A body that is no form, a form without images, and a form with too many get a 400."""
    refused(await api.search(PICTURES[0], BATCH), 400, "malformed_request")
    refused(await api.ask("POST", BATCH, data=form_of(k="3")), 400, "malformed_request")
    form = aiohttp.MultipartWriter("form-data")
    form.append("3").set_content_disposition("form-data", name="k")
    refused(await api.ask("POST", BATCH, data=form), 400, "empty_image")
    answer = await _batch(api, *PICTURES[:1] * 17)
    refused(answer, 400, "malformed_request")
    assert "16 images at most" in answer.json["detail"]
    assert api.embedder.embedded == []


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"cursor": "abc"}, 400, "malformed_request"),
        ({"k": "0"}, 400, "malformed_request"),
        ({"filter": '{"label": []}'}, 400, "malformed_request"),
        ({"collection": "fish"}, 404, "unknown_collection"),
    ],
)
async def test_a_wrong_parameter_refuses_the_whole_batch(
    api: Api, fields: dict[str, str], status: int, code: str
) -> None:
    """A fault of all images is a single problem, and no image is embedded."""
    refused(await _batch(api, *PICTURES, **fields), status, code)
    assert api.embedder.embedded == []


async def test_a_blocked_broker_refuses_the_whole_batch(api: Api) -> None:
    """While the broker is blocked, the body is not read."""
    api.broker.block()
    refused(await _batch(api, *PICTURES), 503, "broker_unavailable")


class TestTwoSlots:
    """Tests a service with two slots and small batches."""

    @pytest.fixture
    def upload_settings(self) -> UploadSettings:
        """Return settings with two queries in flight, 100 kB a batch, and a second for a body."""
        return UploadSettings(
            port=0, max_in_flight=2, batch_max_bytes=100_000, body_timeout_seconds=1
        )

    async def test_images_are_admitted_as_slots_become_free(self, api: Api) -> None:
        """A batch of more images than slots is answered completely."""
        answer = await _batch(api, *PICTURES)
        assert answer.status == 200
        assert [set(result) for result in answer.json["results"]] == [{"name", "answer"}] * 4
        assert _metric(api, "in_flight_queries") == _metric(api, "held_bytes") == 0

    async def test_a_batch_leaves_half_of_the_slots_to_others(self, api: Api) -> None:
        """While the first image of a batch is in flight, another caller's query is answered."""
        other = plain_jpeg((1, 2, 3))
        api.embedder.ignoring.update(PICTURES)
        asking = asyncio.create_task(_batch(api, *PICTURES))
        while _metric(api, "in_flight_queries") < 1:
            await asyncio.sleep(0.005)
        assert (await api.search(other)).status == 200
        assert _metric(api, "in_flight_queries") == 1
        await cancel(asking)

    async def test_batches_together_leave_half_of_the_slots_to_others(self, api: Api) -> None:
        """Two batches that wait for answers keep no single query out."""
        other = plain_jpeg((1, 2, 3))
        api.embedder.ignoring.update(PICTURES)
        asking = [asyncio.create_task(_batch(api, *PICTURES)) for _ in range(2)]
        # Both have been read: one image is sent, and all others wait.
        while _metric(api, "waiting_queries") < 7:
            await asyncio.sleep(0.005)
        assert (await api.search(other)).status == 200
        assert _metric(api, "in_flight_queries") == 1
        for one in asking:
            await cancel(one)

    async def test_a_batch_waits_for_a_slot(self, api: Api) -> None:
        """A batch that finds every slot taken is let in when one becomes free, and answered."""
        taken = [plain_jpeg((200, 2, shade)) for shade in (10, 90)]
        api.embedder.ignoring.update(taken)
        asking = [asyncio.create_task(api.search(one)) for one in taken]
        while _metric(api, "in_flight_queries") < 2:
            await asyncio.sleep(0.005)
        batch = asyncio.create_task(_batch(api, *PICTURES))
        while _metric(api, "waiting_queries") < 1:
            await asyncio.sleep(0.005)
        await cancel(asking[0])
        answer = await batch
        assert [set(result) for result in answer.json["results"]] == [{"name", "answer"}] * 4
        await cancel(asking[1])

    async def test_a_batch_of_known_images_is_answered_whole(self, api: Api) -> None:
        """Images whose vectors are cached wait for the slots of searches, too."""
        await _batch(api, *PICTURES)
        for _ in range(3):
            answer = await _batch(api, *PICTURES)
            assert [set(result) for result in answer.json["results"]] == [{"name", "answer"}] * 4
        assert len(api.embedder.embedded) == len(PICTURES)

    async def test_a_batch_is_refused_before_it_is_read_without_a_free_slot(self, api: Api) -> None:
        """With both slots taken until the deadline, no image of the batch is read."""
        api.embedder.ignoring.update(PICTURES)
        asking = [asyncio.create_task(api.search(one)) for one in PICTURES[:2]]
        while _metric(api, "in_flight_queries") < 2:
            await asyncio.sleep(0.005)

        async def endless() -> Any:
            yield _part(b"\xff\xd8")
            while True:
                yield b"more"
                await asyncio.sleep(0.01)

        headers = {"Content-Type": "multipart/form-data; boundary=x", "Request-Timeout": "0.1"}
        answer = await api.ask("POST", BATCH, data=endless(), headers=headers)
        refused(answer, 503, "overloaded")
        for one in asking:
            await cancel(one)

    async def test_all_images_together_are_bounded(self, api: Api) -> None:
        """Too many bytes are a 413, with or without a Content-Length."""
        refused(await _batch(api, bytes(70_000), bytes(99_000)), 413, "image_too_large")

        async def unannounced() -> Any:
            yield _part(bytes(70_000)) + b"\r\n" + _part(bytes(31_000)) + b"\r\n--x--\r\n"

        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = await api.ask("POST", BATCH, data=unannounced(), headers=headers)
        refused(answer, 413, "image_too_large")
        assert "a batch may have 100000 bytes" in answer.json["detail"]

    async def test_a_batch_that_does_not_arrive_is_given_up(self, api: Api) -> None:
        """The bodies and bytes of the batch are released after a limited time."""

        async def stuck() -> Any:
            yield _part(PICTURES[0])
            await asyncio.sleep(5)

        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = await api.ask("POST", BATCH, data=stuck(), headers=headers)
        refused(answer, 408, "body_timeout")
        assert _metric(api, "arriving_bodies") == _metric(api, "held_bytes") == 0


class TestShortDeadline:
    """Tests a service with a short deadline."""

    @pytest.fixture
    def upload_settings(self) -> UploadSettings:
        """Return settings with a deadline of 0.3 s."""
        return UploadSettings(port=0, deadline_seconds=0.3)

    async def test_an_image_that_nobody_answers_fails_alone(self, api: Api) -> None:
        """A missed deadline does not affect the other answers."""
        api.embedder.ignoring.add(PICTURES[1])
        answer = await _batch(api, *PICTURES[:3])
        matches("BatchAnswer", answer)
        codes = [result.get("problem", {}).get("code") for result in answer.json["results"]]
        assert codes == [None, "deadline_exceeded", None]


class TestSlowEmbedder:
    """Tests a service with a single slot and a short deadline."""

    @pytest.fixture
    def upload_settings(self) -> UploadSettings:
        """Return settings with a query at a time and a deadline of 0.5 s."""
        return UploadSettings(port=0, max_in_flight=1, deadline_seconds=0.5)

    async def test_images_that_get_no_slot_in_time_are_refused_alone(self, api: Api) -> None:
        """The batch ends by its deadline, for the image in flight and for those that wait."""
        api.embedder.ignoring.update(PICTURES)
        answer = await _batch(api, *PICTURES[:3])
        assert answer.status == 200
        codes = {result["problem"]["code"] for result in answer.json["results"]}
        assert codes <= {"deadline_exceeded", "overloaded"}


def _part(image: bytes) -> bytes:
    return b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + image

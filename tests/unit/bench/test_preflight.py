"""Conditions that prevent a measurement end the command before the load, with advice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from services.bench import preflight
from services.bench.load.images import read_images
from services.bench.target import Address, Target
from services.shared.errors import (
    CollectionRequired,
    MalformedRequest,
    UnknownCollection,
    Unreachable,
    UnsupportedFormat,
)
from tests.support.running import free_port
from tests.unit.bench.conftest import Server

BIRDS = {"name": "birds", "index_version": "v1", "model_id": "m", "count": 3}
PROBLEM = {"code": "unsupported_format", "detail": "a GIF is not accepted"}


@asynccontextmanager
async def answering(path: str, answer: Any, status: int = 200) -> AsyncIterator[str]:
    """Run a server with this single JSON answer, and yield its URL."""

    async def handle(request: web.Request) -> web.Response:
        del request
        return web.json_response(answer, status=status)

    app = web.Application()
    app.router.add_get(path, handle)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


async def test_the_only_collection_needs_no_name() -> None:
    """The only served collection is chosen."""
    async with answering("/v1/collections", {"collections": [BIRDS]}) as url:
        assert await preflight.look_up(url, None, {}) == BIRDS


async def test_several_collections_need_a_name() -> None:
    """The error lists the collections."""
    several = {"collections": [BIRDS, {**BIRDS, "name": "fish"}]}
    async with answering("/v1/collections", several) as url:
        with pytest.raises(CollectionRequired, match="birds, fish"):
            await preflight.look_up(url, None, {})


async def test_an_unknown_collection_is_the_targets_error() -> None:
    """The target's code and text are passed on."""
    problem = {"code": "unknown_collection", "detail": "there is no fish"}
    async with answering("/v1/collections/fish", problem, 404) as url:
        with pytest.raises(UnknownCollection, match="there is no fish"):
            await preflight.look_up(url, "fish", {})


@pytest.mark.parametrize("stranger", [{"hello": "world"}, ["a list"], "a text"])
async def test_a_stranger_is_no_simile(stranger: Any) -> None:
    """JSON that isn't Simile's is reported as unreachable."""
    async with answering("/v1/collections", stranger) as url:
        with pytest.raises(Unreachable, match="not as a Simile does"):
            await preflight.look_up(url, None, {})


async def test_nobody_there_is_unreachable() -> None:
    """The error suggests to check that `simile up` runs."""
    with pytest.raises(Unreachable, match="is `simile up` running"):
        await preflight.look_up(f"http://127.0.0.1:{free_port()}", None, {})


async def test_images_that_the_target_refuses_are_not_measured(server: Server) -> None:
    """When every image is refused, the target's own error ends the command before any load."""

    async def refusing(body: bytes) -> web.Response:
        del body
        return web.json_response(PROBLEM, status=415)

    server.answering = refusing
    with pytest.raises(UnsupportedFormat, match="a GIF"):
        await preflight.check_served(server.target(b"one", b"two"), 5)
    assert len(server.bodies) == 2


async def test_one_image_that_is_taken_is_enough(server: Server) -> None:
    """A folder may hold refused images, which show up as answers in the result."""

    async def choosy(body: bytes) -> web.Response:
        return web.json_response(PROBLEM, status=200 if body == b"good" else 415)

    server.answering = choosy
    await preflight.check_served(server.target(b"bad", b"good"), 5)


async def test_a_refusal_for_load_is_no_reason_to_stop(server: Server) -> None:
    """Answers 429 and 503 belong into the measurement."""

    async def full(body: bytes) -> web.Response:
        del body
        return web.json_response({}, status=429)

    server.answering = full
    await preflight.check_served(server.target(), 5)
    assert len(server.bodies) == 1


async def test_a_target_that_hangs_up_is_unreachable() -> None:
    """The error of a search without an answer names /readyz."""
    target = Target(f"http://127.0.0.1:{free_port()}", [b"image"])
    with pytest.raises(Unreachable, match="/readyz"):
        await preflight.check_served(target, 5)


def test_a_folder_without_images_says_what_it_needs(tmp_path: Path) -> None:
    """Text, hidden files and empty files don't count as images."""
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.jpg").write_bytes(b"image")
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(MalformedRequest, match="--images"):
        read_images(tmp_path, 10)


def test_the_same_images_are_chosen_every_time(tmp_path: Path) -> None:
    """A fixed seed chooses from all sub-folders, and never more than requested."""
    for number in range(20):
        folder = tmp_path / str(number % 3)
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.JPG").write_bytes(b"%d" % number)
    chosen = read_images(tmp_path, 7)
    assert len(set(chosen)) == 7
    assert chosen == read_images(tmp_path, 7)
    assert len(read_images(tmp_path, 100)) == 20


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://simile.example", Address("simile.example", 80)),
        ("https://simile.example/prefix", Address("simile.example", 443, tls=True)),
        ("http://[::1]:8080", Address("::1", 8080)),
    ],
)
def test_a_target_listens_where_its_url_says(url: str, address: Address) -> None:
    """The scheme gives the port where the URL has none."""
    assert Target(url, [b"image"]).address == address


def test_a_request_is_whole() -> None:
    """The head holds path with prefix, host, headers and length in that order; the body follows."""
    target = Target(
        "https://simile.example/prefix/", [b"image"], headers={"X-One": "1"}, unique=False
    )
    head, body = next(target.requests())
    assert body == b"image"
    assert head.decode() == (
        "POST /prefix/v1/search HTTP/1.1\r\nHost: simile.example\r\n"
        "Content-Type: application/octet-stream\r\nX-One: 1\r\nContent-Length: 5\r\n\r\n"
    )

"""Serves a small HTTP API to put load on; tests choose its answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from services.bench.target import Target

Answering = Callable[[bytes], Awaitable[web.Response]]


async def served(body: bytes) -> web.Response:
    """Return the answer to a search."""
    del body
    timing = "decode;dur=1.5, model;dur=20.0, total;dur=25.0"
    return web.json_response({"neighbors": []}, headers={"Server-Timing": timing})


async def overloaded(body: bytes) -> web.Response:
    """Return Simile's refusal under overload."""
    del body
    return web.json_response({"code": "overloaded"}, status=503, headers={"Retry-After": "1"})


async def collections(request: web.Request) -> web.Response:
    """Return a list of one collection."""
    del request
    one = {"name": "birds", "index_version": "v1", "model_id": "m", "count": 3}
    return web.json_response({"collections": [one]})


@dataclass
class Server:
    """Records the bodies it received, and the loop's time at which each arrived."""

    answering: Answering = served
    url: str = ""
    bodies: list[bytes] = field(default_factory=list)
    at_seconds: list[float] = field(default_factory=list)
    connections: set[int] = field(default_factory=set)

    async def handle(self, request: web.Request) -> web.Response:
        """Record a POST and answer it."""
        body = await request.read()
        self.bodies.append(body)
        self.at_seconds.append(asyncio.get_running_loop().time())
        assert request.transport is not None
        self.connections.add(request.transport.get_extra_info("peername")[1])
        return await self.answering(body)

    def target(self, *bodies: bytes, unique: bool = False) -> Target:
        """Return this server as a target of the load generator."""
        return Target(self.url, bodies or (b"an image",), unique=unique)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """Run a server on a free port of loopback that answers searches and collections."""
    remembering = Server()
    app = web.Application()
    app.router.add_get("/v1/collections", collections)
    app.router.add_post("/v1/search", remembering.handle)
    async with TestServer(app) as running:
        remembering.url = str(running.make_url("")).rstrip("/")
        yield remembering

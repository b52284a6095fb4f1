"""Serves by hand: a process of aiohttp, a queue, and a thread per core that takes images."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import uvloop
from aiohttp import web

from tests.benchmarks.rivals import similarity
from tests.benchmarks.rivals.similarity import Similarity

_MAX_BODY_BYTES = 15 * 2**20


class Batcher:
    """A queue of images, and workers that each take the waiting ones."""

    def __init__(self, model: Similarity, workers: int) -> None:
        self._model = model
        self._workers = workers
        self._threads = ThreadPoolExecutor(workers)
        self._waiting: asyncio.Queue[tuple[bytes, asyncio.Future[list[str]]]] = asyncio.Queue()

    async def search(self, request: web.Request) -> web.Response:
        """Handle POST of an image."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((await request.read(), answer))
        return web.json_response({"ids": await answer})

    async def working(self, _: web.Application) -> AsyncIterator[None]:
        """Run the workers during the application's life."""
        tasks = [asyncio.create_task(self._work(), name=f"{at}") for at in range(self._workers)]
        yield
        for task in tasks:
            task.cancel()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < similarity.MAX_BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            images = [image for image, _ in batch]
            try:
                found = await loop.run_in_executor(self._threads, self._model.answer, images)
            except Exception as error:  # noqa: BLE001 (a bad image must not end the worker)
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), ids in zip(batch, found, strict=True):
                if not answer.done():
                    answer.set_result(ids)


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    uvloop.install()
    batcher = Batcher(similarity.from_environment(), os.cpu_count() or 1)
    app = web.Application(client_max_size=_MAX_BODY_BYTES)
    app.add_routes([web.post("/", batcher.search)])
    app.cleanup_ctx.append(batcher.working)
    web.run_app(app, host="127.0.0.1", port=options.port, access_log=None)


if __name__ == "__main__":
    main()

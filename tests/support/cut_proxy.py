"""Runs a TCP proxy on loopback that cuts, delays or half-opens its connections for a test."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class CutProxy:
    """Forwards connections to a port of this machine until a test cuts them."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._pipes: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing: set[asyncio.Event] = set()
        self._stalled = False
        self.delay_seconds = 0.0
        """The delay of each block of bytes, in each direction."""
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        self.resume()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    def cut(self) -> None:
        """Close every connection; new connections are forwarded."""
        for writer in list(self._writers):
            writer.transport.abort()

    def stall(self) -> None:
        """Stop forwarding on every connection, also new ones, and keep all of them open."""
        self._stalled = True
        self.freeze()

    def freeze(self) -> None:
        """Stop forwarding on the present connections; new connections are forwarded."""
        for flowing in self._flowing:
            flowing.clear()

    def resume(self) -> None:
        """Forward again on every connection."""
        self._stalled = False
        for flowing in self._flowing:
            flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        flowing = asyncio.Event()
        self._flowing.add(flowing)
        if not self._stalled:
            flowing.set()
        for source, sink in ((reader, upstream[1]), (upstream[0], writer)):
            self._writers.add(sink)
            pipe = asyncio.create_task(self._pipe(source, sink, flowing))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _pipe(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, flowing: asyncio.Event
    ) -> None:
        try:
            while block := await source.read(64 * 1024):
                await asyncio.sleep(self.delay_seconds)
                await flowing.wait()
                sink.write(block)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()
            self._writers.discard(sink)
            self._flowing.discard(flowing)

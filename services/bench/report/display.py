"""Shows the progress of a run: time, images per second, unserved requests.

The bar is drawn only once a second, since drawing takes CPU from the requests.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from services.bench.run import SERVED, Sample
from services.shared.lifecycle import cancel

_REFRESH_SECONDS: Final = 1.0


class Display:
    """Draws a bar on a terminal's standard error, and nothing elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._served = 0
        self._others = 0

    def watch(self, sample: Sample) -> None:
        """Count a sample."""
        if sample.code == SERVED:
            self._served += 1
        else:
            self._others += 1

    @contextlib.asynccontextmanager
    async def run(self, name: str, seconds: float) -> AsyncIterator[None]:
        """Draw the bar while inside, for a run of about so many seconds with its warm-up."""
        self._served = self._others = 0
        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f} of {task.total:.0f} s"),
            TextColumn("{task.fields[counts]}"),
            console=self._console,
            transient=True,
            auto_refresh=False,
            disable=not self._console.is_terminal,
        )
        with bar:
            drawing = asyncio.create_task(self._draw(bar, name, seconds))
            try:
                yield
            finally:
                await cancel(drawing)

    async def _draw(self, bar: Progress, name: str, seconds: float) -> None:
        shown = bar.add_task(name, total=seconds, counts="")
        clock = asyncio.get_running_loop().time
        begun, before = clock(), 0
        while True:
            counts = f"{(self._served - before) / _REFRESH_SECONDS:,.0f} images/s"
            if self._others:
                counts += f", {self._others:,} not served"
            before = self._served
            bar.update(shown, completed=min(seconds, clock() - begun), counts=counts, refresh=True)
            await asyncio.sleep(_REFRESH_SECONDS)

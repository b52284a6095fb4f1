"""Scrapes processes repeatedly, and shows the changes between two scrapes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live

from services.clients import admin
from services.shared.errors import Unreachable
from services.top.scrape import Scrape, scrape_all
from services.top.summary import Summary, summary
from services.top.view import shown


async def once(urls: Sequence[str], interval_seconds: float) -> Summary:
    """Summarize one interval. Raises Unreachable where no process answers."""
    async with admin.session() as asking:
        before = await scrape_all(asking, urls)
        if all(scrape.samples is None for scrape in before):
            raise Unreachable(_reasons(before))
        await asyncio.sleep(interval_seconds)
        return summary(before, await scrape_all(asking, urls))


async def watch(urls: Sequence[str], interval_seconds: float, console: Console) -> None:
    """Show the summary on the whole screen until cancelled, with processes that don't answer."""
    before: Sequence[Scrape] = ()
    async with admin.session() as asking:
        with Live(console=console, screen=True, auto_refresh=False) as screen:
            while True:
                after = await scrape_all(asking, urls)
                screen.update(shown(summary(before, after)), refresh=True)
                before = after
                await asyncio.sleep(interval_seconds)


def _reasons(scrapes: Sequence[Scrape]) -> str:
    return "; ".join(scrape.away for scrape in scrapes)

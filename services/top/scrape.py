"""What one process said at one moment, or why it said nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp

from services.clients import admin
from services.shared.errors import Unreachable
from services.shared.telemetry.samples import Samples


@dataclass(frozen=True, slots=True)
class Scrape:
    """One admin address. samples: None where nothing answered, and `away` says why.

    taken_seconds: when, on the monotonic clock. failing: the checks against its readiness.
    """

    url: str
    taken_seconds: float
    samples: Samples | None = None
    failing: Mapping[str, str] = field(default_factory=dict)
    away: str = ""


async def scrape_all(asking: aiohttp.ClientSession, urls: Sequence[str]) -> Sequence[Scrape]:
    """Scrape at all of them at once, in their order; one that is away keeps nobody waiting long."""
    return await asyncio.gather(*(_scrape(asking, url) for url in urls))


async def _scrape(asking: aiohttp.ClientSession, url: str) -> Scrape:
    try:
        text = await admin.metrics(asking, url)
        taken = time.monotonic()
        return Scrape(url, taken, admin.parsed(url, text), await admin.not_ready(asking, url))
    except Unreachable as error:
        return Scrape(url, time.monotonic(), away=str(error))

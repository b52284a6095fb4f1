"""Scrapes the metrics and the readiness of processes."""

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
    """Holds the scrape of an admin address.

    Attributes:
        url: the address.
        taken_seconds: the time of the scrape, by the monotonic clock.
        samples: the metrics; None where nothing answered.
        failing: the failing checks of readiness with their reasons.
        away: the reason why nothing answered.
    """

    url: str
    taken_seconds: float
    samples: Samples | None = None
    failing: Mapping[str, str] = field(default_factory=dict)
    away: str = ""


async def scrape_all(asking: aiohttp.ClientSession, urls: Sequence[str]) -> Sequence[Scrape]:
    """Scrape all addresses concurrently, in their order; those that don't answer time out."""
    return await asyncio.gather(*(_scrape(asking, url) for url in urls))


async def _scrape(asking: aiohttp.ClientSession, url: str) -> Scrape:
    try:
        text = await admin.metrics(asking, url)
        taken = time.monotonic()
        return Scrape(url, taken, admin.parsed(url, text), await admin.not_ready(asking, url))
    except Unreachable as error:
        return Scrape(url, time.monotonic(), away=str(error))

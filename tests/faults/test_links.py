"""Tests half-open and slow connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

import pytest

from tests.support.checker import Load
from tests.support.cut_proxy import CutProxy
from tests.support.system import System

pytestmark = pytest.mark.asyncio(loop_scope="session")

BACK_SECONDS: Final = 2.0


async def test_a_half_open_link_of_upload_is_replaced(
    system: System,
    links: Mapping[str, CutProxy],
    load: Callable[..., Load],
    seen: Callable[..., None],
) -> None:
    """An unconfirmed publish reveals the half-open link; 2 s later all queries are answered."""
    asked = load()
    async with asked.running():
        await asked.answered()
        moment = time.monotonic()
        links["upload"].freeze()
        await asked.answered()
    codes = asked.judge("broker_unavailable", "reply_queue_lost")
    back = asked.back_after(moment)
    seen("half-open link of upload", f"answered again after {back:.2f} s", codes)
    assert back <= BACK_SECONDS
    assert system.processes["upload-1"].alive


@pytest.mark.parametrize("service", ["embedder", "searcher"])
async def test_half_open_links_of_workers_are_replaced(
    links: Mapping[str, CutProxy],
    load: Callable[..., Load],
    seen: Callable[..., None],
    service: str,
) -> None:
    """Unconfirmed results or a missing heartbeat reveal the half-open links."""
    asked = load()
    async with asked.running():
        await asked.answered()
        moment = time.monotonic()
        links[service].freeze()
        await asyncio.sleep(2)
        await asked.answered()
    codes = asked.judge("deadline_exceeded", "overloaded")
    seen(
        f"half-open links of all {service}s", f"back after {asked.back_after(moment):.2f} s", codes
    )


async def test_services_reconnect_as_soon_as_a_dead_network_is_back(
    links: Mapping[str, CutProxy], load: Callable[..., Load], seen: Callable[..., None]
) -> None:
    """New connections hang, too; a hanging attempt is abandoned for another."""
    asked = load()
    async with asked.running():
        await asked.answered()
        links["upload"].stall()
        await asked.until(lambda: asked.outcomes[-1].code == "broker_unavailable")
        await asyncio.sleep(3)
        links["upload"].resume()
        healed = time.monotonic()
        await asked.answered()
    codes = asked.judge("broker_unavailable", "reply_queue_lost", "deadline_exceeded")
    back = asked.back_after(healed)
    seen("network dead for 3 s", f"answered again after {back:.2f} s", codes)
    assert back <= BACK_SECONDS


async def test_slow_links_only_slow_down(
    links: Mapping[str, CutProxy], load: Callable[..., Load]
) -> None:
    """With 60 ms more latency on every link each query is answered."""
    asked = load()
    for link in links.values():
        link.delay_seconds = 0.06
    try:
        async with asked.running():
            await asked.answered(40)
    finally:
        for link in links.values():
            link.delay_seconds = 0.0
    asked.judge()

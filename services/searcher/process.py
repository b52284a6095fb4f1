"""Runs the searcher service in a process of its own; settings come from the environment."""

from __future__ import annotations

import asyncio

from services.searcher.service import run
from services.searcher.settings import SearcherSettings
from services.shared.lifecycle import exit_on_error
from services.shared.messaging.broker import Broker
from services.shared.process import run_service
from services.shared.settings import SharedSettings, load
from services.shared.telemetry import Telemetry


@exit_on_error
def main() -> None:
    """Read the settings and run until a signal."""
    settings, shared = load(SearcherSettings), load(SharedSettings)

    async def run_here(broker: Broker, stop: asyncio.Event, telemetry: Telemetry) -> None:
        await run(settings, shared, broker, stop=stop, telemetry=telemetry)

    run_service("searcher", shared, run_here)

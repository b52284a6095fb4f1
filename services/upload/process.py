"""Runs the upload service in a process of its own; settings come from the environment."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry

from services.shared.lifecycle import exit_on_error
from services.shared.messaging.broker import Broker
from services.shared.process import run_service
from services.shared.settings import SharedSettings, load
from services.shared.telemetry import Telemetry
from services.upload.app import run
from services.upload.metrics import UploadMetrics
from services.upload.security.security import Security
from services.upload.settings import UploadSettings


@exit_on_error
def main() -> None:
    """Read the settings and run until a signal."""
    settings, shared = load(UploadSettings), load(SharedSettings)
    # An unreadable file ends the process now, not after a wait for RabbitMQ.
    Security.of(settings, UploadMetrics(CollectorRegistry()))

    async def run_here(broker: Broker, stop: asyncio.Event, telemetry: Telemetry) -> None:
        await run(settings, shared, broker, stop=stop, telemetry=telemetry)

    run_service("upload", shared, run_here)

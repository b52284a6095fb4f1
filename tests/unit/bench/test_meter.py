"""A measurement combines the load with the resources that the services used."""

from __future__ import annotations

import pytest

from services.bench.load.meter import Meter, Plan
from services.shared.errors import Unreachable
from tests.unit.bench.conftest import Server


async def test_a_service_that_is_gone_is_named(server: Server) -> None:
    """When its metrics can't be read any more, the error names the service."""
    plan = Plan(seconds=0.05, warmup_seconds=0.0, metrics=["http://127.0.0.1:1"])
    meter = Meter(server.target(), plan)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1"):
        await meter.closed(1)
    assert server.bodies

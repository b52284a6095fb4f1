"""Reads the metrics and the readiness of processes from their admin ports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from services.shared.errors import Unreachable
from services.shared.json_text import read_json
from services.shared.telemetry.samples import Samples

_METRICS: Final = "/metrics"
_TIMEOUT: Final = aiohttp.ClientTimeout(total=10)
_NOT_READY: Final = 503


def session() -> aiohttp.ClientSession:
    """Return a session for the other functions, with a timeout of 10 s; the caller closes it."""
    return aiohttp.ClientSession(timeout=_TIMEOUT)


async def metrics(asking: aiohttp.ClientSession, url: str) -> str:
    """Fetch the text of /metrics from an admin address, with that path or without.

    Raises Unreachable where nothing answers.
    """
    address = url if urlsplit(url).path.strip("/") else f"{url.rstrip('/')}{_METRICS}"
    try:
        async with asking.get(address) as answer:
            answer.raise_for_status()
            return await answer.text()
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        reason = str(error) or type(error).__name__
        message = (
            f"no metrics at {address} ({reason}): give the admin address of a service "
            "(SIMILE_ADMIN_PORT) with --metrics"
        )
        raise Unreachable(message) from error


def parsed(url: str, text: str) -> Samples:
    """Parse the text of /metrics. Raises Unreachable when it is not Prometheus's format."""
    try:
        return Samples.parsed(text)
    except ValueError as error:
        message = f"{url} answers, but not with Prometheus metrics: {error}"
        raise Unreachable(message) from error


async def not_ready(asking: aiohttp.ClientSession, url: str) -> Mapping[str, str]:
    """Return the failing checks of /readyz with their reasons. Raises Unreachable."""
    address = f"{url.rstrip('/').removesuffix(_METRICS)}/readyz"
    try:
        async with asking.get(address) as answer:
            if answer.status != _NOT_READY:
                answer.raise_for_status()
            body: dict[str, Any] = await answer.json(content_type=None, loads=read_json)
            return {str(name): str(reason) for name, reason in body["failing"].items()}
    except (aiohttp.ClientError, TimeoutError, ValueError, LookupError) as error:
        message = f"no readiness at {address} ({str(error) or type(error).__name__})"
        raise Unreachable(message) from error

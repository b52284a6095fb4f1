"""Checks before any load that Simile answers, and that it accepts the images."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Mapping
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final

import aiohttp

from services.bench.facts import Facts, machine
from services.bench.load.http_client import Answer, Connection
from services.bench.load.meter import Plan
from services.bench.target import Target
from services.shared.errors import (
    CollectionRequired,
    SimileError,
    Unreachable,
    by_code,
    from_code,
)
from services.shared.json_text import read_json

_TRIED: Final = 8
_TIMEOUT: Final = aiohttp.ClientTimeout(total=10)


async def look_up(
    url: str, collection: str | None, headers: Mapping[str, str]
) -> Mapping[str, Any]:
    """Fetch the description of the collection; None takes the only one.

    Raises Unreachable, CollectionRequired where it serves several and none is named, or the
    error that the target names.
    """
    if collection:
        return await _get(url, headers, f"/v1/collections/{collection}", "index_version")
    served = (await _get(url, headers, "/v1/collections", "collections"))["collections"]
    if len(served) != 1:
        names = ", ".join(one["name"] for one in served) or "none yet"
        message = f"name a collection with --collection; {url} serves: {names}"
        raise CollectionRequired(message)
    one: Mapping[str, Any] = served[0]
    return one


def facts_of(found: Mapping[str, Any], target: Target, plan: Plan) -> Facts:
    """Return the facts of a measurement that begins now."""
    bodies = target.bodies
    return Facts(
        url=target.url,
        collection=found["name"],
        model_id=found["model_id"],
        index_version=found["index_version"],
        count=found["count"],
        images=len(bodies),
        image_bytes=sum(map(len, bodies)) // len(bodies),
        unique=target.unique,
        seconds=plan.seconds,
        warmup_seconds=plan.warmup_seconds,
        generator=machine(),
        simile_version=version("simile-search"),
        begun=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )


async def _get(url: str, headers: Mapping[str, str], path: str, expected: str) -> Mapping[str, Any]:
    """Fetch a JSON object with the expected name. Raises Unreachable for any other answer."""
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT, headers=headers) as session,
            session.get(f"{url.rstrip('/')}{path}") as answer,
        ):
            status, body = answer.status, await answer.json(content_type=None, loads=read_json)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        reason = str(error) or type(error).__name__
        message = (
            f"no Simile answers at {url} ({reason}): is `simile up` running there? "
            "Another address is given by --url or SIMILE_URL"
        )
        raise Unreachable(message) from error
    if status == HTTPStatus.OK and isinstance(body, dict) and expected in body:
        return body
    raise _named(url, status, body)


async def check_served(target: Target, timeout_seconds: float) -> None:
    """Send a few images, so that a load of refusals only is never measured.

    Raises the error that the target names when it takes none of them, or Unreachable.
    """
    requests = target.requests()
    status, body = 0, b""
    for _ in range(min(_TRIED, len(target.bodies))):
        answer = await _send(target, *next(requests), timeout_seconds)
        status, body = answer.status, answer.body
        if not _final(status):
            return
    try:
        problem = read_json(body)
    except ValueError:
        problem = None
    raise _named(target.url, status, problem)


async def _send(target: Target, head: bytes, body: bytes, timeout_seconds: float) -> Answer:
    connection: Connection | None = None
    try:
        async with asyncio.timeout(timeout_seconds):
            connection = await Connection.open(target.address)
            return await connection.post(head, body)
    except OSError as error:  # a TimeoutError too
        reason = str(error) or type(error).__name__
        message = (
            f"{target.url} does not answer a search ({reason}): its log and its /readyz say why"
        )
        raise Unreachable(message) from error
    finally:
        if connection is not None:
            connection.close()


def _final(status: int) -> bool:
    """Return whether a retry can't help: 4xx, except for "too many requests"."""
    client_fault = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    return client_fault and status != HTTPStatus.TOO_MANY_REQUESTS


def _named(url: str, status: int, body: object) -> SimileError:
    """Return the error of a problem body, or Unreachable for another server's answer."""
    if isinstance(body, dict) and body.get("code") in by_code():
        return from_code(str(body["code"]), str(body.get("detail")))
    return Unreachable(
        f"{url} answers {status}, and not as a Simile does: give the address of its upload "
        "service, or of the ingress before it, with --url"
    )

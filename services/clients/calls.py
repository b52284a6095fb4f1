"""Calls the HTTP API of a running Simile through simile_client.

Commands import this module when they run: it takes a quarter of a second.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import httpx

import simile_client
from services.clients.api import Answer, ClientSettings, QueryImage
from services.shared.errors import FileUnusable, SimileError, Unreachable, from_code
from services.shared.json_text import read_json
from services.shared.settings import load
from simile_client import AsyncSimile, Retries
from simile_client.calls import Call
from simile_client.images import Upload

_DEADLINE_SECONDS: Final = 300.0
"""The time limit of one request, in which a batch may arrive over a slow line."""


class Client:
    """Calls one Simile; errors of its API are raised by their code, or as Unreachable."""

    def __init__(self, simile: AsyncSimile, url: str) -> None:
        self._simile = simile
        self._url = url

    async def search(
        self, image: QueryImage, parameters: Mapping[str, str], *, pages: int = 1
    ) -> AsyncIterator[Answer]:
        """Yield the answers of POST /v1/search, page by page, at most `pages`.

        Raises FileUnusable.
        """
        cursor: dict[str, str] = {}
        for _ in range(pages):
            answer = await self._search(image, {**parameters, **cursor})
            yield answer
            if answer["next_cursor"] is None:
                return
            if cursor.get("cursor") == answer["next_cursor"]:
                message = f"the server at {self._url} answers twice with the same cursor"
                raise Unreachable(message)
            cursor = {"cursor": answer["next_cursor"]}

    async def _search(self, image: QueryImage, parameters: Mapping[str, str]) -> Answer:
        if image.vector is None:
            return await self._send("/v1/search", "neighbors", parameters, [image])
        body = {**parameters, "vector": image.vector}
        return await self._send("/v1/search", "neighbors", body=body)

    async def search_batch(
        self, images: Sequence[QueryImage], parameters: Mapping[str, str]
    ) -> Sequence[Answer]:
        """Return the results of POST /v1/search/batch: one for each image, in their order.

        Raises FileUnusable.
        """
        answer = await self._send("/v1/search/batch", "results", parameters, images)
        results: Sequence[Answer] = answer["results"]
        return results

    async def limits(self) -> Answer:
        """Return the limits of images and batches, as GET /v1/collections has them."""
        answer = await self._send("/v1/collections", "limits")
        limits: Answer = answer["limits"]
        return limits

    async def _send(
        self,
        route: str,
        expected: str,
        parameters: Mapping[str, str] | None = None,
        images: Sequence[QueryImage] | None = None,
        body: Mapping[str, object] | None = None,
    ) -> Answer:
        """Return the body of an answer, which has the member `expected`."""
        uploads = None if images is None else [_upload(image) for image in images]
        call = Call(route, partial(_object_with, expected), parameters or {}, uploads, body)
        try:
            return await self._simile.send(call)
        except simile_client.ApiError as error:
            raise _problem(error) from error
        except simile_client.Unreachable as error:
            cause = error.__cause__ or error
            reason = str(cause) or type(cause).__name__
            message = (
                f"no Simile answers at {self._url} ({reason}): is `simile up` running there? "
                "Another address is given by --url or SIMILE_URL"
            )
            raise Unreachable(message) from error
        except simile_client.UnexpectedAnswer as error:
            message = f"the server at {self._url} is not Simile: give Simile's address with --url"
            raise Unreachable(message) from error
        except OSError as error:
            message = f"{error.filename or 'the image'} can't be read: {error.strerror}"
            raise FileUnusable(message) from error


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    """Yield a client of the Simile at that address, which sends the environment's API key.

    Certificates are those of the system, and no proxy of the environment is used. Callers of the
    client wait themselves where Simile is full.
    """
    key = load(ClientSettings).api_key
    async with httpx.AsyncClient(verify=ssl.create_default_context(), trust_env=False) as http:
        try:
            simile = AsyncSimile(
                url,
                api_key=None if key is None else key.get_secret_value(),
                deadline_seconds=_DEADLINE_SECONDS,
                retries=Retries(attempts=1),
                http=http,
            )
        except simile_client.Unreachable as error:
            raise Unreachable(str(error)) from error
        async with simile:
            yield Client(simile, url)


def _upload(image: QueryImage) -> Upload:
    """Return the upload of an image; a file is read piece by piece, when it is sent."""
    return Upload.of(image.url or image.path or image.content)


def _object_with(expected: str, response: httpx.Response) -> Answer:
    """Return the JSON object of a response as it was sent, with its member `expected`."""
    try:
        body: Any = read_json(response.text)
    except ValueError:
        body = None
    if not isinstance(body, dict) or expected not in body:
        message = f"{response.url} answers without {expected!r}"
        raise simile_client.UnexpectedAnswer(message)
    return body


def _problem(error: simile_client.ApiError) -> SimileError:
    """Return the error of a problem body, with the seconds of its Retry-After."""
    problem = from_code(error.code, error.problem.detail)
    if error.retry_after_seconds is not None:
        problem.retry_after_seconds = int(error.retry_after_seconds)
    return problem

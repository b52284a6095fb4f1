"""Calls the HTTP API of a running Simile for the command line."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

import simile_client
from services.shared.environment import EnvironmentSettings
from services.shared.errors import (
    FileUnusable,
    InvalidSettings,
    SimileError,
    Unreachable,
    from_code,
)
from services.shared.json_text import read_json
from services.shared.settings import load
from simile_client import AsyncSimile, Retries
from simile_client.calls import Call
from simile_client.images import Upload

DEFAULT_URL: Final = "http://127.0.0.1:8080"

_MAX_FILE_BYTES: Final = 2**30
_DEADLINE_SECONDS: Final = 300.0
"""The time limit of one request, in which a batch may arrive over a slow line."""

Answer = Mapping[str, Any]
"""A JSON object as the API sent it."""


class ClientSettings(EnvironmentSettings):
    """The settings of commands that call a running Simile."""

    model_config = SettingsConfigDict(env_prefix="SIMILE_")

    url: str = Field(
        default=DEFAULT_URL,
        description="The address of the Simile that `simile query` and `simile bench` call; their "
        "option `--url` goes before it.",
    )
    api_key: SecretStr | None = Field(
        default=None,
        description="The API key of `simile query`, `simile bench`, and the first query of a "
        "`simile up` that requires keys.",
    )


def simile_url(given: str | None) -> str:
    """Return the address of Simile: the one given, or that of the environment.

    Raises InvalidSettings where it is no URL.
    """
    url = load(ClientSettings, url=given).url
    if not url.startswith(("http://", "https://")):
        message = f"{url!r} is no URL: --url (SIMILE_URL) begins with http:// or https://"
        raise InvalidSettings(message)
    return url.rstrip("/")


def key_headers() -> dict[str, str]:
    """Return the header with the API key of the environment, where one is set.

    The key is no option of a command, since other users of the machine can read those.
    """
    key = load(ClientSettings).api_key
    return {} if key is None else {"Authorization": f"Bearer {key.get_secret_value()}"}


@dataclass(frozen=True, slots=True)
class QueryImage:
    """An image to search by: a file, bytes, or an address that Simile fetches it from.

    Attributes:
        name: names it in the output.
        path: the file; it is read when the image is sent.
        content: the bytes, where there is no file.
        url: the address, where Simile fetches the image.
    """

    name: str
    path: Path | None = None
    content: bytes = b""
    url: str | None = None

    def loaded(self) -> QueryImage:
        """Return the image with its bytes in memory. Raises FileUnusable."""
        if self.path is None:
            return self
        try:
            with self.path.open("rb") as file:
                content = file.read(_MAX_FILE_BYTES + 1)
        except OSError as error:
            message = f"{self.path} can't be read: {error.strerror}"
            raise FileUnusable(message) from error
        if len(content) > _MAX_FILE_BYTES:
            message = f"{self.path} has more bytes than any image that a Simile takes"
            raise FileUnusable(message)
        return replace(self, path=None, content=content)

    def upload(self) -> Upload:
        """Return the upload of the image; a file is read piece by piece, when it is sent."""
        return Upload.of(self.url or self.path or self.content)


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
            sent = {**parameters, **cursor}
            answer = await self._send("/v1/search", "neighbors", sent, [image])
            yield answer
            if answer["next_cursor"] is None:
                return
            cursor = {"cursor": answer["next_cursor"]}

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
    ) -> Answer:
        """Return the body of an answer, which has the member `expected`."""
        uploads = None if images is None else [image.upload() for image in images]
        call = Call(route, partial(_object_with, expected), parameters or {}, uploads)
        try:
            return await self._simile.send(call)
        except simile_client.ApiError as error:
            raise _problem(error) from error
        except simile_client.Unreachable as error:
            cause = error.__cause__ or error
            reason = str(cause) or type(cause).__name__
            message = f"no Simile answers at {self._url} ({reason}): is `simile up` running there?"
            raise Unreachable(message) from error
        except simile_client.UnexpectedAnswer as error:
            message = f"the server at {self._url} is not Simile: give Simile's address with --url"
            raise Unreachable(message) from error
        except OSError as error:
            message = f"{error.filename} can't be read: {error.strerror}"
            raise FileUnusable(message) from error


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    """Yield a client of the Simile at that address, which sends the environment's API key.

    Certificates are those of the system, and no proxy of the environment is used. Callers of the
    client wait themselves where Simile is full.
    """
    key = load(ClientSettings).api_key
    async with (
        httpx.AsyncClient(verify=ssl.create_default_context(), trust_env=False) as http,
        AsyncSimile(
            url,
            api_key=None if key is None else key.get_secret_value(),
            deadline_seconds=_DEADLINE_SECONDS,
            retries=Retries(attempts=1),
            http=http,
        ) as simile,
    ):
        yield Client(simile, url)


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

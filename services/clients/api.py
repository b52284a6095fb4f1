"""Calls the HTTP API of a running Simile for the command line."""

from __future__ import annotations

import contextlib
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import aiohttp
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

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

DEFAULT_URL: Final = "http://127.0.0.1:8080"

_MAX_FILE_BYTES: Final = 2**30

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

    def add_to(self, form: aiohttp.FormData) -> None:
        """Add the image to a form. Raises FileUnusable."""
        if self.url is not None:
            form.add_field("image_url", self.url)
            return
        name = Path(self.name).name.encode(errors="replace").decode()
        form.add_field("image", io.BytesIO(self.loaded().content), filename=name)


class Client:
    """Calls one Simile; errors of its API are raised by their code, or as Unreachable."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def search(
        self, image: QueryImage, parameters: Mapping[str, str], *, pages: int = 1
    ) -> AsyncIterator[Answer]:
        """Yield the answers of POST /v1/search, page by page, at most `pages`."""
        cursor: dict[str, str] = {}
        for _ in range(pages):
            answer = await self._post(
                "/v1/search", [image], {**parameters, **cursor}, expected="neighbors"
            )
            yield answer
            if answer["next_cursor"] is None:
                return
            cursor = {"cursor": answer["next_cursor"]}

    async def search_batch(
        self, images: Sequence[QueryImage], parameters: Mapping[str, str]
    ) -> Sequence[Answer]:
        """Return the results of POST /v1/search/batch: one for each image, in their order."""
        answer = await self._post("/v1/search/batch", images, parameters, expected="results")
        results: Sequence[Answer] = answer["results"]
        return results

    async def limits(self) -> Answer:
        """Return the limits of images and batches, as GET /v1/collections has them."""
        request = self._session.get(f"{self._url}/v1/collections")
        answer = await self._answer(request, expected="limits")
        limits: Answer = answer["limits"]
        return limits

    async def _post(
        self,
        route: str,
        images: Sequence[QueryImage],
        parameters: Mapping[str, str],
        *,
        expected: str,
    ) -> Answer:
        # Parameters go into the form, since a proxy may refuse a URL as long as filter and cursor.
        form = aiohttp.FormData(parameters, default_to_multipart=True)
        for image in images:
            image.add_to(form)
        return await self._answer(
            self._session.post(f"{self._url}{route}", data=form), expected=expected
        )

    async def _answer(
        self, request: contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse], expected: str
    ) -> Answer:
        """Return the body of an answer, which has the member `expected`."""
        try:
            async with request as answer:
                body: Any = await answer.json(content_type=None, loads=read_json)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            reason = str(error) or type(error).__name__
            message = f"no Simile answers at {self._url} ({reason}): is `simile up` running there?"
            raise Unreachable(message) from error
        if not isinstance(body, dict) or (expected if answer.ok else "code") not in body:
            message = f"the server at {self._url} is not Simile: give Simile's address with --url"
            raise Unreachable(message)
        if not answer.ok:
            raise _problem(body, answer.headers.get("Retry-After", ""))
        return body


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    """Yield a client of the Simile at that address, which sends the environment's API key."""
    async with aiohttp.ClientSession(headers=key_headers()) as session:
        yield Client(session, url)


def _problem(body: Answer, retry_after: str) -> SimileError:
    """Return the error of a problem body, with the seconds of its Retry-After."""
    error = from_code(str(body["code"]), str(body.get("detail")))
    if retry_after.isascii() and retry_after.isdigit():
        error.retry_after_seconds = int(retry_after)
    return error

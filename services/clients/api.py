"""Calls the HTTP API for the command line, and formats its answers as tables."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict
from rich.table import Table

from services.cli.tables import add_row, new_table
from services.shared.environment import EnvironmentSettings
from services.shared.errors import FileUnusable, Unreachable, from_code
from services.shared.json_text import read_json
from services.shared.settings import load

_MAX_FILE_BYTES: Final = 2**30

Answer = Mapping[str, Any]
"""A JSON object as the API sent it."""


class ClientSettings(EnvironmentSettings):
    """The settings of commands that call a running Simile."""

    model_config = SettingsConfigDict(env_prefix="SIMILE_")

    api_key: SecretStr | None = Field(
        default=None,
        description="The API key of `simile query`, `simile bench`, and the first query of a "
        "`simile up` that requires keys.",
    )


def key_headers() -> dict[str, str]:
    """Return the header with the API key of the environment, where one is set.

    The key is no option of a command, since other users of the machine can read those.
    """
    key = load(ClientSettings).api_key
    return {} if key is None else {"Authorization": f"Bearer {key.get_secret_value()}"}


async def search(
    url: str, image: Path, parameters: Mapping[str, str], *, pages: int = 1
) -> list[Answer]:
    """Return the answers of POST /v1/search, page by page, at most `pages`.

    Raises the error that the problem body names, or Unreachable.
    """
    answers: list[Answer] = []
    cursor: dict[str, str] = {}
    while len(answers) < pages:
        answer = await _post(url, "/v1/search", [image], {**parameters, **cursor})
        answers.append(answer)
        if answer["next_cursor"] is None:
            break
        cursor = {"cursor": answer["next_cursor"]}
    return answers


async def search_batch(url: str, images: Sequence[Path], parameters: Mapping[str, str]) -> Answer:
    """Return the answer of POST /v1/search/batch: a result for each image, in their order.

    Raises the error that the problem body names, or Unreachable.
    """
    return await _post(url, "/v1/search/batch", images, parameters)


async def _post(
    url: str, route: str, images: Sequence[Path], parameters: Mapping[str, str]
) -> Answer:
    if "://" not in url:
        message = f"{url!r} is no URL: write http://{url}"
        raise Unreachable(message)
    # Parameters go into the form, since a proxy may refuse a URL as long as filter and cursor.
    form = aiohttp.FormData(parameters)
    for image in images:
        name = image.name.encode(errors="replace").decode()
        form.add_field("image", io.BytesIO(_read(image)), filename=name)
    try:
        async with (
            aiohttp.ClientSession(headers=key_headers()) as session,
            session.post(f"{url.rstrip('/')}{route}", data=form) as answer,
        ):
            body: Any = await answer.json(content_type=None, loads=read_json)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        message = f"no Simile answers at {url} ({error}): is `simile up` running there?"
        raise Unreachable(message) from error
    expected = {"neighbors", "results"} if answer.ok else {"code"}
    if not isinstance(body, dict) or not expected & body.keys():
        message = f"the server at {url} is not Simile: give Simile's address with --url"
        raise Unreachable(message)
    if not answer.ok:
        raise from_code(str(body["code"]), str(body.get("detail")))
    return body


def _read(image: Path) -> bytes:
    """Read the bytes of an image. Raises FileUnusable."""
    try:
        with image.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        message = f"{image} can't be read: {error.strerror}"
        raise FileUnusable(message) from error
    if len(content) > _MAX_FILE_BYTES:
        message = f"{image} has more bytes than any image that a Simile takes"
        raise FileUnusable(message)
    return content


def table_of(answers: Sequence[Answer], title: str) -> Table:
    """Format the pages of a query as a table; its caption shows when there are more results."""
    table = new_table("", "similarity", "label", "item", "", title=title)
    neighbors = [neighbor for answer in answers for neighbor in answer["neighbors"]]
    for rank, neighbor in enumerate(neighbors, start=1):
        folded = len(neighbor["duplicates"])
        add_row(
            table,
            str(rank),
            f"{neighbor['similarity']:.4f}",
            neighbor["label"],
            neighbor["item_id"],
            f"+{folded} near-duplicate{'s' if folded > 1 else ''}" if folded else "",
        )
    if answers[-1]["next_cursor"] is not None:
        table.caption = f"{len(neighbors)} of {answers[-1]['matching']}"
    return table

"""The settings, images and answers of commands that call a running Simile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from services.shared.environment import EnvironmentSettings
from services.shared.errors import (
    FileUnusable,
    InvalidSettings,
)
from services.shared.settings import load

DEFAULT_URL: Final = "http://127.0.0.1:8080"

MAX_FILE_BYTES: Final = 100 * 2**20
"""The bytes of an image at most; no Simile takes larger ones (SIMILE_IMAGE_MAX_BYTES)."""

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
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        message = f"{url!r} is no URL: {error}"
        raise InvalidSettings(message) from error
    if not usable:
        message = f"{url!r} is no URL: a host is missing, or the port is 0"
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
        vector: the numbers to search by, in place of an image.
    """

    name: str
    path: Path | None = None
    content: bytes = b""
    url: str | None = None
    vector: Sequence[float] | None = None

    def loaded(self) -> QueryImage:
        """Return the image with its bytes in memory. Raises FileUnusable."""
        if self.path is None:
            return self
        try:
            with self.path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            message = f"{self.path} can't be read: {error.strerror}"
            raise FileUnusable(message) from error
        if len(content) > MAX_FILE_BYTES:
            message = f"{self.path} has more bytes than any image that a Simile takes"
            raise FileUnusable(message)
        return replace(self, path=None, content=content)

"""Defines the settings of all services, which are read once from `SIMILE_*` in the environment.

A setting has the same name as field, environment variable, Helm value and docs heading. A service's
own settings are in its `settings.py`; no other module reads the environment.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.shared.environment import EnvironmentSettings
from services.shared.errors import InvalidSettings
from services.shared.image_limits import Limits

Port = Annotated[int, Field(ge=0, le=65535)]
"""A TCP port; 0 takes a free one."""

_AnySettings = TypeVar("_AnySettings", bound=BaseSettings)

_EXAMPLE: Final = "amqp://user:password@host:5672/"
_SCHEMES: Final = frozenset({"amqp", "amqps"})
_ENCODED: Final = "%2F for /, %3F for ?, %23 for #, %5B for [, %25 for %"
_BARE_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


class SharedSettings(EnvironmentSettings):
    """The settings of every process."""

    model_config = SettingsConfigDict(env_prefix="SIMILE_")

    amqp_url: SecretStr | None = Field(
        default=None,
        description="The URL of RabbitMQ: amqp://user:password@host:port/vhost or amqps://...; "
        "heartbeats are 5 s, or as in ?heartbeat=.",
    )
    amqp_ca_file: Path | None = Field(
        default=None,
        description="The CA certificate (PEM) that signs RabbitMQ's certificate, with amqps://; "
        "default: those of the system.",
    )
    amqp_cert_file: Path | None = Field(
        default=None, description="The client certificate (PEM) for RabbitMQ, with amqps://."
    )
    amqp_key_file: Path | None = Field(
        default=None, description="The client certificate's key (PEM)."
    )
    root: Path = Field(
        default=Path.home() / ".local" / "share" / "simile",
        description="The volume that holds the collections' index versions.",
    )
    replica: str = Field(
        default_factory=socket.gethostname,
        pattern=r"^[A-Za-z0-9._-]{1,100}$",
        description="This replica's name in queue names and logs; in Kubernetes the pod's name.",
    )
    admin_host: str = Field(
        default="127.0.0.1", description="The address on which /livez, /readyz and /metrics listen."
    )
    admin_port: Port = Field(default=9090, description="The port of /livez, /readyz and /metrics.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The lowest level of the log lines that are written."
    )
    log_format: Literal["auto", "json", "pretty"] = Field(
        default="auto", description="auto is pretty on a terminal, and otherwise json."
    )
    tracing: Literal["off", "otlp"] = Field(
        default="off",
        description="otlp sends traces of queries; the standard `OTEL_*` variables set the "
        "destination and the sampling.",
    )
    event_loop: Literal["auto", "asyncio", "uvloop"] = Field(
        default="auto",
        description="auto is uvloop if it is installed, which needs less CPU for each message.",
    )
    drain_timeout_seconds: float = Field(
        default=20.0,
        gt=0,
        le=600,
        description="How long the work in flight may take after SIGTERM.",
    )
    canary_seconds: float = Field(
        default=15.0,
        ge=0,
        le=3600,
        description="How often upload and searcher send a canary, a query with a known answer, "
        "through all services; 0 turns canaries off.",
    )
    publish_timeout_seconds: float = Field(
        default=1.0, gt=0, le=30, description="How long the broker may take to confirm a message."
    )
    image_max_bytes: int = Field(
        default=15 * 2**20,
        ge=1024,
        le=100 * 2**20,
        description="The maximum bytes of an image; RabbitMQ 4 refuses messages over 16 MiB.",
    )
    image_max_pixels: int = Field(
        default=64_000_000,
        ge=1,
        le=1_000_000_000,
        description="The maximum number of pixels of an image.",
    )
    image_max_aspect: float = Field(
        default=100.0,
        ge=1,
        description="The maximum ratio of an image's longer side to its shorter side.",
    )

    @property
    def image_limits(self) -> Limits:
        """The limits under which images are accepted."""
        return Limits(self.image_max_bytes, self.image_max_pixels, self.image_max_aspect)

    @field_validator("amqp_url")
    @classmethod
    def _is_amqp(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            _require_amqp_url(url.get_secret_value())
        return url


def load(kind: type[_AnySettings], **overrides: object) -> _AnySettings:
    """Read settings from the environment.

    Args:
        kind: the class of the settings.
        overrides: values, such as CLI options, that go before the environment; None and "" count
            as absent.

    Raises:
        InvalidSettings: a value is missing or out of range; the message names each variable.
    """
    given: dict[str, Any] = {
        name: value for name, value in overrides.items() if value is not None and value != ""
    }
    try:
        return kind(**given)
    except ValidationError as error:
        prefix = str(kind.model_config.get("env_prefix", ""))
        entries = error.errors(include_input=False, include_url=False)
        raise InvalidSettings("; ".join(_message(prefix, entry) for entry in entries)) from None


def _message(prefix: str, entry: ErrorDetails) -> str:
    if not entry["loc"]:
        # The error is about several settings, which the validator's message names.
        return str(entry["ctx"]["error"])
    name = f"{prefix}{'_'.join(str(part) for part in entry['loc'])}".upper()
    ours = entry.get("ctx", {}).get("error")
    return f"{name}: {entry['msg'].lower() if ours is None else ours}"


def _require_amqp_url(url: str) -> None:
    """Check that a text is an AMQP URL.

    Raises:
        ValueError: the text is no AMQP URL; the message says why, without the password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in _SCHEMES:
        message = f"it must begin with amqp:// or amqps://, like {_EXAMPLE}"
        raise ValueError(message)
    user_info, at, _ = rest.rpartition("@")
    # A vhost has no @ unless encoded, so all before the last @ is user and password.
    if at and (re.search(r"[/?#\[\]\s]", user_info) or _BARE_PERCENT.search(user_info)):
        message = (
            "its user or password holds a character that has to be percent-encoded in a URL: "
            f"{_ENCODED}"
        )
        raise ValueError(message)
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        message = f"its host or port can't be read; it is to be like {_EXAMPLE}"
        raise ValueError(message) from None
    if not host:
        message = f"it names no host; it is to be like {_EXAMPLE}"
        raise ValueError(message)

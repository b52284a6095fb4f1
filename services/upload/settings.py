"""The upload service's settings, from SIMILE_UPLOAD_*."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Final, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from services.shared.contracts import MAX_ITEMS
from services.shared.environment import EnvironmentSettings
from services.shared.messaging.topology import MAX_DEADLINE_SECONDS
from services.shared.settings import Port

_ORIGIN: Final = re.compile(
    r"\*|https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?"
)
_PREFIX: Final = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")
_HOST: Final = re.compile(r"[a-z0-9._-]+(:[0-9]{1,5})?|\[[0-9a-f:]+\](:[0-9]{1,5})?")


class UploadSettings(EnvironmentSettings):
    """The address of the API, its limits and its access control."""

    model_config = SettingsConfigDict(env_prefix="SIMILE_UPLOAD_")

    host: str = Field(default="127.0.0.1", description="The address of the API and the page.")
    port: Port = Field(default=8080, description="The port of the API and the page; 0: a free one.")
    deadline_seconds: float = Field(
        default=5.0,
        gt=0,
        le=MAX_DEADLINE_SECONDS,
        description="How long a query may take before it is answered with 504.",
    )
    body_timeout_seconds: float = Field(
        default=30.0, gt=0, le=600, description="How long a request's body may take to arrive."
    )
    body_bytes_per_second: int = Field(
        default=1024,
        ge=0,
        le=2**30,
        description="A body that arrives more slowly than this for 5 seconds is answered with "
        "408; 0 means no limit.",
    )
    max_bodies: int = Field(
        default=1024,
        ge=1,
        le=100_000,
        description="The maximum number of bodies that arrive at the same time; one API key, or "
        "one address without a key, may send three quarters of them. Further bodies "
        "are answered with 503 or 429.",
    )
    body_memory_bytes: int = Field(
        default=256 * 2**20,
        ge=1024,
        le=2**40,
        description="Memory for the bodies of all requests together; one API key or address may "
        "use three quarters of it. At least twice the largest body is always "
        "available.",
    )
    max_in_flight: int = Field(
        default=256,
        ge=1,
        le=100_000,
        description="The maximum number of queries by image at the same time, and of queries "
        "that need no embedder; more are answered with 503. The limit is lower while "
        "not all of them could be answered in time.",
    )
    max_batch_images: int = Field(
        default=16, ge=1, le=MAX_ITEMS, description="The maximum number of images in a batch."
    )
    batch_max_bytes: int = Field(
        default=64 * 2**20,
        ge=1024,
        le=2**30,
        description="The maximum bytes of all images of a batch together.",
    )
    embedder_start_seconds: float = Field(
        default=0.0,
        ge=0,
        le=3600,
        description="How long an embedder takes to start, if an autoscaler may stop all of them: "
        "a query without an embedder is refused with this time as Retry-After, and "
        "stays in the queue for the autoscaler. 0 if an embedder always runs.",
    )
    default_collection: str | None = Field(
        default=None, description="The collection of a query that names none, if there are several."
    )
    hidden_collections: str = Field(
        default="",
        description="Collections of the volume, separated by commas, that are neither listed nor "
        "searched.",
    )
    images_root: Path | None = Field(
        default=None,
        description="The folder of the images, as <images_root>/<collection>; default: where the "
        "index builder read them.",
    )
    show_paths: bool = Field(
        default=True,
        description="Include the path of each item's file, relative to the collection's folder, "
        "in answers.",
    )
    embedding_cache_bytes: int = Field(
        default=32 * 2**20,
        ge=0,
        description="Memory for the cached vectors of query images: the same bytes need no "
        "embedder again. 0 turns the cache off.",
    )
    shrink: bool = Field(
        default=False,
        description="Decode large photographs at upload, and send the embedders only the pixels "
        "that the model needs: less work for embedders and broker, more for upload. "
        "Vectors stay the same.",
    )
    thumbnail_pixels: int = Field(
        default=320, ge=16, le=2048, description="A thumbnail's longest side."
    )
    thumbnail_cache_bytes: int = Field(
        default=64 * 2**20, ge=0, description="Memory for cached thumbnails."
    )
    lame_duck_seconds: float = Field(
        default=0.0,
        ge=0,
        le=300,
        description="How long a stopping replica, already unready, still accepts connections and "
        "answers, until every load balancer has noticed.",
    )
    header_timeout_seconds: float = Field(
        default=10.0, gt=0, le=600, description="How long a request's headers may take to arrive."
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="A file with a line for each API key, as `simile keys new` prints it; read "
        "again when it changes. Without a file no key is needed.",
    )
    allow_anonymous: bool = Field(
        default=False,
        description="Allow an address that other machines can reach without API keys; required "
        "there, because the keys may have been forgotten.",
    )
    rate_per_second: float = Field(
        default=0.0,
        ge=0,
        le=1e6,
        description="Queries per second that one API key, or one address without a key, may send "
        "to each replica; 0 means no limit.",
    )
    rate_burst: int = Field(
        default=20,
        ge=1,
        le=1_000_000,
        description="Queries that a caller may send at once after a pause, if there is a limit.",
    )
    tls_cert_file: Path | None = Field(
        default=None,
        description="The certificate with its chain (PEM) for HTTPS; read again when it changes.",
    )
    tls_key_file: Path | None = Field(default=None, description="The certificate's key (PEM).")
    cors_origins: str = Field(
        default="",
        description="Origins, separated by commas, whose pages may use the API with a key in a "
        "header; * for all; none by default.",
    )
    query_by_url: bool = Field(
        default=False,
        description="Let callers send `image_url` instead of an image; Simile fetches it, from "
        "public addresses only.",
    )
    url_allowed_hosts: str = Field(
        default="",
        description="Hosts (host or host:port, separated by commas) that `image_url` may name "
        "although their address is private or their port is not 80 or 443.",
    )

    path_prefix: str = Field(
        default="",
        description="The path under which a proxy offers Simile, such as /simile: answers name it, "
        "and the page's cookie is sent there alone. Requests are answered with and without it.",
    )
    allowed_hosts: str = Field(
        default="",
        description="Names (host or host:port, separated by commas) accepted in the Host header "
        "besides localhost and its addresses; * for all. By default only a Simile "
        "without API keys on a loopback address checks the name.",
    )

    @property
    def origins(self) -> frozenset[str]:
        """The origins of `cors_origins`."""
        return _listed(self.cors_origins)

    @property
    def hidden(self) -> frozenset[str]:
        """The collections of `hidden_collections`."""
        return _listed(self.hidden_collections)

    @property
    def fetch_hosts(self) -> frozenset[str]:
        """The hosts of `url_allowed_hosts`."""
        return _listed(self.url_allowed_hosts)

    @property
    def hosts(self) -> frozenset[str]:
        """The names of `allowed_hosts`."""
        return _listed(self.allowed_hosts)

    @property
    def only_own_hosts(self) -> bool:
        """True if requests for other names are refused."""
        anonymous = self.api_keys_file is None and is_loopback(self.host)
        return "*" not in self.hosts and (bool(self.hosts) or anonymous)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if not (self.api_keys_file or self.allow_anonymous or is_loopback(self.host)):
            message = (
                f"SIMILE_UPLOAD_HOST is {self.host or 'every address'}, which others can reach, "
                "and there are no API keys: set SIMILE_UPLOAD_API_KEYS_FILE (`simile keys new` "
                "makes a key), or say SIMILE_UPLOAD_ALLOW_ANONYMOUS=true where something in front "
                "knows who may enter"
            )
            raise ValueError(message)
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            message = "SIMILE_UPLOAD_TLS_CERT_FILE and SIMILE_UPLOAD_TLS_KEY_FILE go together"
            raise ValueError(message)
        if not _PREFIX.fullmatch(self.path_prefix):
            message = f"SIMILE_UPLOAD_PATH_PREFIX: {self.path_prefix!r} is not of the form /simile"
            raise ValueError(message)
        _require("SIMILE_UPLOAD_CORS_ORIGINS", self.origins, _ORIGIN, "https://shop.example, or *")
        _require("SIMILE_UPLOAD_URL_ALLOWED_HOSTS", self.fetch_hosts, _HOST, "images.example:8080")
        _require("SIMILE_UPLOAD_ALLOWED_HOSTS", self.hosts - {"*"}, _HOST, "simile.example:8080")
        return self


def is_loopback(host: str) -> bool:
    """Return whether a host is only reachable from this machine; unknown names may be public."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listed(text: str) -> frozenset[str]:
    return frozenset(part.strip().lower() for part in text.split(",") if part.strip())


def _require(name: str, given: frozenset[str], form: re.Pattern[str], example: str) -> None:
    wrong = sorted(part for part in given if not form.fullmatch(part))
    if wrong:
        message = f"{name}: {wrong[0]!r} is not of the form {example}"
        raise ValueError(message)

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
_HOST: Final = re.compile(r"[a-z0-9._-]+(:[0-9]{1,5})?|\[[0-9a-f:]+\](:[0-9]{1,5})?")


class UploadSettings(EnvironmentSettings):
    """The address of the API, its limits and its access control."""

    model_config = SettingsConfigDict(env_prefix="SIMILE_UPLOAD_")

    host: str = Field(default="127.0.0.1", description="Where the API and the page listen.")
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
        description="A body that comes more slowly than this for 5 seconds is answered with 408; "
        "0 is without a limit.",
    )
    max_bodies: int = Field(
        default=1024,
        ge=1,
        le=100_000,
        description="Bodies on their way at once, at most; one API key, or one address without a "
        "key, may send three quarters of them. More are answered with 503, or 429.",
    )
    body_memory_bytes: int = Field(
        default=256 * 2**20,
        ge=1024,
        le=2**40,
        description="Memory for the bodies of all requests together, of which one API key or "
        "address may use three quarters; twice the largest body is always given.",
    )
    max_in_flight: int = Field(
        default=256,
        ge=1,
        le=100_000,
        description="Queries at once, at most, by image, and as many that need no embedder; more "
        "are answered with 503. Fewer are let in where as many could not be answered in time.",
    )
    max_batch_images: int = Field(
        default=16, ge=1, le=MAX_ITEMS, description="The most images in one batch."
    )
    batch_max_bytes: int = Field(
        default=64 * 2**20,
        ge=1024,
        le=2**30,
        description="The most bytes that the images of a batch may have together.",
    )
    embedder_start_seconds: float = Field(
        default=0.0,
        ge=0,
        le=3600,
        description="Where an autoscaler may stop every embedder: how long one takes to start. "
        "A query that finds none is refused with that time as Retry-After, and left in the "
        "queue for the autoscaler to see; 0 where an embedder always runs.",
    )
    default_collection: str | None = Field(
        default=None, description="The collection of a query that names none, where several are."
    )
    hidden_collections: str = Field(
        default="",
        description="Collections of the volume, separated by commas, that are neither listed nor "
        "searched.",
    )
    images_root: Path | None = Field(
        default=None,
        description="Where the images are, as <images_root>/<collection>; "
        "default: where the index builder saw them.",
    )
    show_paths: bool = Field(
        default=True,
        description="Answers name the file of each item, as its path relative to the collection's "
        "folder.",
    )
    embedding_cache_bytes: int = Field(
        default=32 * 2**20,
        ge=0,
        description="Memory for the vectors of images that were asked by: the same bytes asked "
        "again skip the embedder; 0 turns it off.",
    )
    shrink: bool = Field(
        default=False,
        description="Decode large photographs here and send embedders the pixels that their model "
        "looks at: less for them to do and for the broker to carry, more to do for upload. "
        "Vectors stay the same.",
    )
    thumbnail_pixels: int = Field(
        default=320, ge=16, le=2048, description="A thumbnail's longest side."
    )
    thumbnail_cache_bytes: int = Field(
        default=64 * 2**20, ge=0, description="Memory for thumbnails that were asked for."
    )
    lame_duck_seconds: float = Field(
        default=0.0,
        ge=0,
        le=300,
        description="How long a stopping replica still accepts connections and answers "
        "as before, not ready, until every load balancer has noticed.",
    )
    header_timeout_seconds: float = Field(
        default=10.0, gt=0, le=600, description="How long a request's headers may take to arrive."
    )
    api_keys_file: Path | None = Field(
        default=None,
        description="A line for each API key, as `simile keys new` prints it; read again when it "
        "changes. Without it everybody who reaches the port may ask.",
    )
    allow_anonymous: bool = Field(
        default=False,
        description="Listen on an address that others can reach without API keys; needed there, "
        "since it looks like a forgotten SIMILE_UPLOAD_API_KEYS_FILE.",
    )
    rate_per_second: float = Field(
        default=0.0,
        ge=0,
        le=1e6,
        description="Queries a second that one API key may ask, or one address without a key, at "
        "each replica; 0 is without a limit.",
    )
    rate_burst: int = Field(
        default=20,
        ge=1,
        le=1_000_000,
        description="Queries that it may ask at once after a rest, where there is a limit.",
    )
    tls_cert_file: Path | None = Field(
        default=None,
        description="The certificate with its chain (PEM), to speak HTTPS; read again when it "
        "changes.",
    )
    tls_key_file: Path | None = Field(default=None, description="The certificate's key (PEM).")
    cors_origins: str = Field(
        default="",
        description="Origins whose pages may use the API with a key in a header, separated by "
        "commas, or *; none by default.",
    )
    query_by_url: bool = Field(
        default=False,
        description="Let callers name an image's address as `image_url`, which Simile fetches: "
        "from public addresses alone.",
    )
    url_allowed_hosts: str = Field(
        default="",
        description="Hosts (host or host:port, separated by commas) to fetch from although their "
        "addresses are private or their port is neither 80 nor 443.",
    )

    allowed_hosts: str = Field(
        default="",
        description="Names (host or host:port, separated by commas) that are answered besides "
        "localhost and its addresses, as the request's Host; * for all. Without it only a Simile "
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

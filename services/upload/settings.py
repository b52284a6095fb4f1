"""The upload service's settings, from SIMILE_UPLOAD_*."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.shared.messaging.topology import LONGEST_DEADLINE_SECONDS
from services.shared.settings import Port


class UploadSettings(BaseSettings):
    """Where the API listens and what it lets in."""

    model_config = SettingsConfigDict(env_prefix="SIMILE_UPLOAD_", frozen=True, extra="ignore")

    host: str = Field(default="127.0.0.1", description="Where the API and the page listen.")
    port: Port = Field(default=8080, description="The port of the API and the page; 0: a free one.")
    deadline_seconds: float = Field(
        default=5.0,
        gt=0,
        le=LONGEST_DEADLINE_SECONDS,
        description="How long a query may take before it is answered with 504.",
    )
    body_timeout_seconds: float = Field(
        default=30.0, gt=0, le=600, description="How long a request's body may take to arrive."
    )
    max_in_flight: int = Field(
        default=256, ge=1, le=100_000, description="Queries at once; more are answered with 503."
    )
    default_collection: str | None = Field(
        default=None, description="The collection of a query that names none, where several are."
    )
    images_root: Path | None = Field(
        default=None,
        description="Where the images are, as <images_root>/<collection>; "
        "default: where the index builder saw them.",
    )
    thumbnail_pixels: int = Field(
        default=320, ge=16, le=2048, description="A thumbnail's longest side."
    )
    thumbnail_cache_bytes: int = Field(
        default=64 * 2**20, ge=0, description="Memory for thumbnails that were asked for."
    )

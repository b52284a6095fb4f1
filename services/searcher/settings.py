"""The searcher's settings, from SIMILE_SEARCHER_*, and the index builder's, from SIMILE_INDEX_*."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.shared.environment import EnvironmentSettings
from services.shared.settings import Port
from services.shared.volume.manifest import MethodName


class SearcherSettings(EnvironmentSettings):
    """Configures how a searcher follows the volume and receives queries."""

    model_config = SettingsConfigDict(env_prefix="SIMILE_SEARCHER_")

    poll_seconds: float = Field(
        default=1.0,
        gt=0,
        le=60,
        description="The interval at which the volume is checked for a new version.",
    )
    prefetch: int = Field(
        default=64,
        ge=1,
        le=1000,
        description="The maximum number of messages that are received and not answered yet.",
    )
    threads: int = Field(default=2, ge=1, le=64, description="Searches that run at the same time.")
    memory_bytes: int | None = Field(
        default=None,
        ge=1,
        description="The maximum bytes of open indexes; other collections are opened when they "
        "are queried. By default all are open.",
    )
    live_recall_share: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="The share of queries that are also answered exactly, to measure recall.",
    )
    unready_after_seconds: float = Field(
        default=8.0,
        gt=0,
        description="A stage (search, replies) that makes no progress for so long makes the "
        "searcher unready.",
    )
    dead_after_seconds: float = Field(
        default=50.0,
        gt=0,
        description="A stage that makes no progress for so long gets the searcher restarted.",
    )


class IndexSettings(EnvironmentSettings):
    """Configures `simile index build`."""

    model_config = SettingsConfigDict(env_prefix="SIMILE_INDEX_")

    recall: float = Field(
        default=0.99,
        gt=0,
        le=1,
        description="The minimum recall@10 against exact search; the build measures search "
        "methods, and chooses the fastest that reaches it.",
    )
    method: Literal["auto"] | MethodName = Field(
        default="auto", description="The only search method to try; auto tries all."
    )
    trees: int = Field(
        default=50,
        ge=1,
        le=1000,
        description="The number of Annoy trees; more trees find more neighbours.",
    )
    reduced_dimension: int = Field(
        default=256,
        ge=0,
        le=4096,
        description="The maximum dimension of reduced vectors; 0 never reduces.",
    )
    graph_seconds: float = Field(
        default=1800.0,
        ge=0,
        description="How long a build may take for the graph of `reduced-hnsw` before it "
        "continues without; 0 builds no graph. Not applied if `SIMILE_INDEX_METHOD` "
        "is `reduced-hnsw`.",
    )
    shard_items: int = Field(
        default=2_000_000,
        ge=1000,
        description="The maximum number of items in an Annoy file; larger collections have "
        "several files.",
    )
    keep_versions: int = Field(
        default=3,
        ge=0,
        le=1000,
        description="How many versions besides the active one a build keeps; 0 keeps all.",
    )
    max_missing: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="The share of the images of the version before that may be missing from the "
        "folder; a build stops where more are missing, as after a disk was unmounted. A single "
        "image may always be missing. 1: all may be.",
    )
    follow_symlinks: bool = Field(
        default=False,
        description="Read the folders that symbolic links lead to, each folder once.",
    )
    in_flight: int = Field(
        default=64, ge=1, le=1000, description="Images sent to the embedders and not answered yet."
    )
    answer_timeout_seconds: float = Field(
        default=120.0, gt=0, description="How long an image may take before it is sent again."
    )
    admin_port: Port | None = Field(
        default=None,
        description="The port of /livez, /readyz and /metrics of a running build, at "
        "SIMILE_ADMIN_HOST; by default there is none.",
    )
    image_max_bytes: int = Field(
        default=256 * 2**20,
        ge=1024,
        le=2**31 - 1,
        description="The maximum bytes of an image file in a build. Larger than the limit for "
        "callers: the builder shrinks large images for the embedders.",
    )
    image_max_pixels: int = Field(
        default=128_000_000,
        ge=1,
        le=1_000_000_000,
        description="The maximum number of pixels that a build decodes of an image, one large "
        "image at a time at up to 16 bytes a pixel; a JPEG is decoded at a fraction "
        "of its size, and its pixels count accordingly.",
    )
    attempts: int = Field(
        default=5, ge=1, le=100, description="How often an image is sent before the build fails."
    )

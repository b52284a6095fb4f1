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
        description="Interval at which the volume is checked for a new version.",
    )
    prefetch: int = Field(
        default=64,
        ge=1,
        le=1000,
        description="At most so many messages are received and not answered yet.",
    )
    threads: int = Field(default=2, ge=1, le=64, description="Searches that run at the same time.")
    memory_bytes: int | None = Field(
        default=None,
        ge=1,
        description="At most so many bytes of indexes are open at once; other collections are "
        "opened when they are queried. Default: all are open.",
    )
    live_recall_share: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of the queries that are also answered exactly, to measure recall.",
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
        description="The recall@10 against exact search to reach; the fastest way that does is "
        "chosen by measuring.",
    )
    method: Literal["auto"] | MethodName = Field(
        default="auto", description="The only way of searching to try; auto tries all."
    )
    trees: int = Field(default=50, ge=1, le=1000, description="Annoy trees; more find more.")
    reduced_dimension: int = Field(
        default=256,
        ge=0,
        le=4096,
        description="The most dimensions that vectors are reduced to; 0: never reduce.",
    )
    graph_seconds: float = Field(
        default=1800.0,
        ge=0,
        description="How long a build may work on the graph of `reduced-hnsw` before it goes on "
        "without; 0: no graph is built. A build that asks for this method by name takes its time.",
    )
    shard_items: int = Field(
        default=2_000_000, ge=1000, description="Items in one Annoy file; more make several files."
    )
    keep_versions: int = Field(
        default=3,
        ge=0,
        le=1000,
        description="Versions besides the active one that a build leaves; 0: all.",
    )
    in_flight: int = Field(
        default=64, ge=1, le=1000, description="Images sent to the embedders and not answered yet."
    )
    answer_timeout_seconds: float = Field(
        default=120.0, gt=0, description="How long one image may take before it is sent again."
    )
    admin_port: Port | None = Field(
        default=None,
        description="Where /livez, /readyz and /metrics of a build listen, at SIMILE_ADMIN_HOST, "
        "while it runs; default: nowhere.",
    )
    image_max_bytes: int = Field(
        default=256 * 2**20,
        ge=1024,
        le=2**31 - 1,
        description="The largest image file that a build takes in, in bytes: larger than callers "
        "may send, since it is made to fit before it goes to the embedders.",
    )
    image_max_pixels: int = Field(
        default=128_000_000,
        ge=1,
        le=1_000_000_000,
        description="The most pixels that a build decodes of an image, one large image at a time "
        "at up to 16 bytes a pixel; a JPEG is decoded at a fraction of its size, and counts so.",
    )
    attempts: int = Field(
        default=5, ge=1, le=100, description="How often one image is sent before the build fails."
    )

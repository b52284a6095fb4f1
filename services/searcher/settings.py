"""The searcher's settings, from SIMILE_SEARCHER_*, and the index builder's, from SIMILE_INDEX_*."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class SearcherSettings(BaseSettings):
    """How a searcher follows the volume and takes its work."""

    model_config = SettingsConfigDict(env_prefix="SIMILE_SEARCHER_", frozen=True, extra="ignore")

    poll_seconds: float = Field(
        default=1.0, gt=0, le=60, description="How often the volume is asked for a new version."
    )
    prefetch: int = Field(
        default=64, ge=1, le=1000, description="Messages taken from the queue and not answered yet."
    )
    threads: int = Field(default=2, ge=1, le=64, description="Searches at the same time.")
    unready_after_seconds: float = Field(
        default=10.0, gt=0, description="A search that takes longer makes the process unready."
    )
    dead_after_seconds: float = Field(
        default=60.0, gt=0, description="A search that takes longer asks for a restart."
    )


class IndexSettings(BaseSettings):
    """How `simile index build` works."""

    model_config = SettingsConfigDict(env_prefix="SIMILE_INDEX_", frozen=True, extra="ignore")

    trees: int = Field(default=50, ge=1, le=1000, description="Annoy trees; more find more.")
    recall: float = Field(
        default=0.99, gt=0, le=1, description="The recall@10 against exact search to reach."
    )
    in_flight: int = Field(
        default=64, ge=1, le=1000, description="Images sent to the embedders and not answered yet."
    )
    answer_timeout_seconds: float = Field(
        default=120.0, gt=0, description="How long one image may take before it is sent again."
    )
    attempts: int = Field(
        default=5, ge=1, le=100, description="How often one image is sent before the build fails."
    )

"""What an operator can tune of an embedder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

ModelName = Literal[
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "vgg16",
    "resnet50",
    "efficientnet_v2_s",
    "convnext_tiny",
    "vit_b_16",
]


class EmbedderSettings(BaseSettings):
    """The model, where it runs, and how images are gathered for it."""

    model_config = SettingsConfigDict(
        env_prefix="SIMILE_EMBEDDER_", frozen=True, extra="ignore", protected_namespaces=()
    )

    model: ModelName = Field(
        default="efficientnet_lite0",
        description="The network that makes the vectors; another one needs another index.",
    )
    weights: Literal["pretrained", "random"] = Field(
        default="pretrained", description="random is for tests only: its neighbours mean nothing."
    )
    weights_file: Path | None = Field(
        default=None, description="A state dict to use instead of the published weights."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto is cuda where there is a GPU, else cpu."
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Batches in the model at a time; by default one a core, or one a GPU.",
    )
    decode_threads: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        le=64,
        description="Images decoded at a time; by default one a core.",
    )
    max_batch_size: int = Field(
        default=8, ge=1, le=256, description="The most images in one batch; a GPU likes 32 or more."
    )
    max_batch_wait_seconds: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="How long an idle worker waits for a fuller batch; 0 is best for almost all.",
    )
    unready_after_seconds: float = Field(
        default=10.0, gt=0, description="A batch this long in the model makes the embedder unready."
    )
    dead_after_seconds: float = Field(
        default=60.0,
        gt=0,
        description="A batch this long in the model gets the embedder restarted.",
    )

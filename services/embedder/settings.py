"""The settings of an embedder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.shared.environment import EnvironmentSettings

Precision = Literal["fp32", "bf16", "fp16"]

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


def _models_dir() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "simile" / "models"


class EmbedderSettings(EnvironmentSettings):
    """The model, its device and runtime, and the batches of images."""

    model_config = SettingsConfigDict(env_prefix="SIMILE_EMBEDDER_", protected_namespaces=())

    model: ModelName = Field(
        default="efficientnet_lite0",
        description="The network that makes the vectors; another network needs another index.",
    )
    weights: Literal["pretrained", "random"] = Field(
        default="pretrained", description="random is for tests only: its results mean nothing."
    )
    weights_file: Path | None = Field(
        default=None, description="A state dict to use instead of the published weights."
    )
    models_dir: Path = Field(
        default_factory=_models_dir,
        description="The folder of exported networks, which start in seconds and without torch.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto is cuda if there is a GPU, and otherwise cpu."
    )
    runtime: Literal["auto", "torch", "onnxruntime", "openvino"] = Field(
        default="auto",
        description="The library that runs the network: auto is torch on a GPU, and on a CPU the "
        "fastest installed library, measured at the first start.",
    )
    precision: Precision = Field(
        default="fp32",
        description="bf16 (openvino, torch) and fp16 (torch on a GPU) are faster where the "
        "hardware has them, and change a few neighbours.",
    )
    workers: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Batches that run at the same time; by default one for each core, or two for "
        "each GPU.",
    )
    decode_threads: int | None = Field(
        default=None,
        ge=1,
        le=64,
        description="Threads that only decode; by default one for each core beside a GPU, and none "
        "on a CPU, where each worker decodes for itself.",
    )
    decode_timeout_seconds: float = Field(
        default=20.0,
        gt=0,
        le=600,
        description="An image that takes longer to decode is answered with decoding_too_slow.",
    )
    most_deaths: int = Field(
        default=3,
        ge=2,
        le=20,
        description="An image is not tried again after so many embedders crashed while they held "
        "it.",
    )
    quarantine_images: bool = Field(
        default=False,
        description="Keep the bytes of quarantined images, to inspect and replay them.",
    )
    max_batch_size: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="The maximum number of images in a batch; by default 8 on a CPU, which gains "
        "nothing from more, and on a GPU the size that was measured as the fastest, "
        "up to 64.",
    )
    max_batch_wait_seconds: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="How long a decoded image waits for a fuller batch; 0 is the best value in "
        "nearly all cases.",
    )
    unready_after_seconds: float = Field(
        default=8.0,
        gt=0,
        description="A stage (decode, model, results) that stalls for this long makes the "
        "embedder unready.",
    )
    dead_after_seconds: float = Field(
        default=50.0,
        gt=0,
        description="A stage that stalls for this long gets the embedder restarted.",
    )

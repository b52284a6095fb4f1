"""Computes what every rival serves: decode, embed, ten neighbours of a plain Annoy file.

`given` is Simile's own decoder and runtime, with a thread of the model per worker; `documented` is
a tutorial's code: Pillow, and torch with its defaults.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

import annoy
import numpy as np
import numpy.typing as npt
from PIL import Image

from services.shared.imaging import Limits

MAX_BATCH: Final = int(os.environ.get("RIVAL_MAX_BATCH", "32"))
NEIGHBORS: Final = 10
DIMENSION: Final = 1280
INDEX: Final = "photographs.ann"
IDS: Final = "ids.json"

_SHORT_SIDE: Final = 256
_CROP: Final = 224

LIMITS: Final = Limits(15 * 2**20, 64_000_000, 100.0)

Pixels = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Similarity:
    """Maps images to the ids of their neighbours; may be shared by several threads.

    prepare: bytes to H,W,3. embed: N,H,W,3 to N,D.
    """

    prepare: Callable[[bytes], Pixels]
    embed: Callable[[Pixels], Vectors]
    index: annoy.AnnoyIndex
    ids: Sequence[str]

    def answer(self, images: Sequence[bytes]) -> list[list[str]]:
        """Return the ids of each image's neighbours, nearest first."""
        return self.found(np.stack([self.prepare(image) for image in images]))

    def found(self, pixels: Pixels) -> list[list[str]]:
        """Return the ids for N prepared images."""
        return [self.search(vector) for vector in self.embed(pixels).tolist()]

    def search(self, vector: list[float]) -> list[str]:
        """Return the ids of a vector's neighbours."""
        return [self.ids[position] for position in self.index.get_nns_by_vector(vector, NEIGHBORS)]


class Threads:
    """Splits the batches of a similarity over threads."""

    def __init__(self, similarity: Similarity, count: int) -> None:
        self._similarity = similarity
        self._count = count
        self._pool = ThreadPoolExecutor(count)

    def answer(self, images: Sequence[bytes]) -> list[list[str]]:
        """Return the ids of each image's neighbours, nearest first."""
        if self._count == 1 or len(images) == 1:
            return self._similarity.answer(images)
        size = -(-len(images) // self._count)
        parts = [images[start : start + size] for start in range(0, len(images), size)]
        return [ids for found in self._pool.map(self._similarity.answer, parts) for ids in found]


def open_similarity(variant: str, folder: Path) -> Similarity:
    """Open `given` or `documented` over the index in that folder."""
    prepare, embed = {"given": _given, "documented": _documented}[variant]()
    index = annoy.AnnoyIndex(DIMENSION, "angular")
    index.load(str(folder / INDEX))
    return Similarity(prepare, embed, index, json.loads((folder / IDS).read_text()))


def from_environment() -> Similarity:
    """Open the variant that RIVAL_VARIANT and RIVAL_FOLDER name."""
    return open_similarity(os.environ["RIVAL_VARIANT"], Path(os.environ["RIVAL_FOLDER"]))


def _given() -> tuple[Callable[[bytes], Pixels], Callable[[Pixels], Vectors]]:
    # Torch and ONNX Runtime take seconds to import, and each variant needs only one.
    from services.embedder.models.loading import load  # noqa: PLC0415
    from services.embedder.settings import EmbedderSettings  # noqa: PLC0415

    settings = EmbedderSettings(runtime="onnxruntime", workers=1, device="cpu")
    (model,) = load(settings, LIMITS)
    return model.prepare, model.embed


def documented_prepare(image: bytes) -> Pixels:
    """Prepare as torchvision's transforms do a Pillow image: short side to 256, the middle 224."""
    picture = Image.open(BytesIO(image)).convert("RGB")
    scale = _SHORT_SIDE / min(picture.size)
    width, height = (round(side * scale) for side in picture.size)
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - _CROP) // 2, (height - _CROP) // 2
    return np.asarray(resized.crop((left, top, left + _CROP, top + _CROP)))


def _documented() -> tuple[Callable[[bytes], Pixels], Callable[[Pixels], Vectors]]:
    import torch  # noqa: PLC0415

    from services.embedder.models import architectures  # noqa: PLC0415
    from services.embedder.settings import EmbedderSettings  # noqa: PLC0415

    network = architectures.build(EmbedderSettings()).network

    def embed(pixels: Pixels) -> Vectors:
        with torch.inference_mode():
            vectors: Vectors = network(torch.from_numpy(pixels)).numpy()
            return vectors

    return documented_prepare, embed

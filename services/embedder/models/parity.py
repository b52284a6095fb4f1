"""Checks on this machine that a runtime gives the same vectors as torch, before it is used."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from services.embedder.models.model import Pixels, Runtime, Vectors
from services.shared.errors import RuntimeUnfit

_MIN_COSINE: Final = {"fp32": 0.9999, "bf16": 0.998, "fp16": 0.998}

_SEED: Final = 20180501
_GRAINS: Final = (1, 2, 4, 8, 16, 32, 64, 112)


def reference_pixels(size: int) -> Pixels:
    """Draw eight images of that side: colours in grains from fine to coarse, always the same."""
    rng = np.random.default_rng(_SEED)
    images = []
    for grain in _GRAINS:
        cells = -(-size // grain)
        coarse = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        images.append(coarse.repeat(grain, axis=0).repeat(grain, axis=1)[:size, :size])
    return np.stack(images)


def cosines(one: Vectors, other: Vectors) -> npt.NDArray[np.float64]:
    """Return the cosine of each pair of vectors; -1 where a vector has no direction."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    dots = np.einsum("nd,nd->n", one.astype(np.float64), other.astype(np.float64))
    found = np.full(len(one), -1.0)
    np.divide(dots, lengths, out=found, where=lengths > 0)
    return found


def check(runtime: Runtime, pixels: Pixels, reference: Vectors) -> float:
    """Return the cosine to the reference: the lowest one in fp32, the median in fewer bits.

    Raises:
        RuntimeUnfit: the cosine is too low.
    """
    info, vectors = runtime.info, runtime.embed(pixels)
    found = cosines(vectors, reference) if vectors.shape == reference.shape else np.array([-1.0])
    cosine = float(found.min() if info.precision == "fp32" else np.median(found))
    minimum = _MIN_COSINE[info.precision]
    if not cosine >= minimum:  # NaN included
        message = (
            f"{info.library} in {info.precision} makes other vectors than torch on this machine "
            f"(cosine {cosine:.5f}, {minimum} is needed): choose another SIMILE_EMBEDDER_RUNTIME "
            "or SIMILE_EMBEDDER_PRECISION"
        )
        raise RuntimeUnfit(message)
    return cosine

"""Whether a runtime gives torch's vectors: checked on this very machine, before it is used."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from services.embedder.models.model import Pixels, Runtime, Vectors
from services.shared.errors import RuntimeUnfit

_LEAST_COSINE: Final = {"fp32": 0.9999, "bf16": 0.998, "fp16": 0.998}

_SEED: Final = 20180501
_GRAINS: Final = (1, 2, 4, 8, 16, 32, 64, 112)


def reference_pixels(size: int) -> Pixels:
    """Eight images of that side: colours in grains from fine to coarse, always the same."""
    rng = np.random.default_rng(_SEED)
    images = []
    for grain in _GRAINS:
        cells = -(-size // grain)
        coarse = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        images.append(coarse.repeat(grain, axis=0).repeat(grain, axis=1)[:size, :size])
    return np.stack(images)


def cosines(one: Vectors, other: Vectors) -> npt.NDArray[np.float64]:
    """Of each pair of vectors that belong together; of what has no direction it is -1."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    dots = np.einsum("nd,nd->n", one.astype(np.float64), other.astype(np.float64))
    found = np.full(len(one), -1.0)
    np.divide(dots, lengths, out=found, where=lengths > 0)
    return found


def check(runtime: Runtime, pixels: Pixels, reference: Vectors) -> float:
    """The cosine to the reference: the least of all, or in fewer bits than 32 the median.

    Raises RuntimeUnfit when it is too small.
    """
    runs, vectors = runtime.runs, runtime.embed(pixels)
    found = cosines(vectors, reference) if vectors.shape == reference.shape else np.array([-1.0])
    cosine = float(found.min() if runs.precision == "fp32" else np.median(found))
    least = _LEAST_COSINE[runs.precision]
    if not cosine >= least:  # NaN included
        message = (
            f"{runs.library} in {runs.precision} makes other vectors than torch on this machine "
            f"(cosine {cosine:.5f}, {least} is needed): choose another SIMILE_EMBEDDER_RUNTIME "
            "or SIMILE_EMBEDDER_PRECISION"
        )
        raise RuntimeUnfit(message)
    return cosine

"""Reduces dimensions and keeps neighbours: truncated SVD, fitted to a sample of the vectors.

PCA without centring best preserves the dot product, which is the similarity here.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from services.searcher.index.scan import Vectors
from services.shared.errors import IndexCorrupt

_SPARE: Final = 10
"""Extra dimensions, for which the requested ones converge."""

_ITERATIONS: Final = 4


@dataclass(frozen=True, slots=True)
class Reduction:
    """A linear map; components: (reduced dimension, dimension), orthonormal, strongest first."""

    components: Vectors

    @property
    def dimension(self) -> int:
        """The dimension of reduced vectors."""
        return len(self.components)

    @classmethod
    def load(cls, path: Path, shape: tuple[int, int]) -> Reduction:
        """Load the reduction in that file. Raises IndexCorrupt for another shape."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                components = np.ascontiguousarray(stored["components"], dtype=np.float32)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            message = f"{path.name} is not a reduction: {error}"
            raise IndexCorrupt(message) from error
        if components.shape != shape:
            message = f"{path.name} has shape {components.shape}, the manifest says {shape}"
            raise IndexCorrupt(message)
        return cls(components)

    def save(self, path: Path) -> None:
        """Write the reduction to a new file."""
        np.savez(path, components=self.components)

    def truncated(self, dimension: int) -> Reduction:
        """Return the reduction with only the strongest `dimension` components."""
        return Reduction(np.ascontiguousarray(self.components[:dimension]))

    def apply(self, vectors: Vectors) -> Vectors:
        """Return reduced vectors of unit length, shape (n, reduced dimension)."""
        reduced = vectors @ self.components.T
        lengths = np.linalg.norm(reduced, axis=1, keepdims=True)
        unit: Vectors = reduced / np.maximum(lengths, np.finfo(np.float32).tiny)
        return unit


def fit(sample: Vectors, dimension: int) -> tuple[Reduction, Vectors]:
    """Fit a reduction to `dimension`; also return the energy share of its first n components.

    The shares (dimension,) ascend; 1 means no loss. The same sample gives the same
    reduction.

    Randomised, by subspace iteration (Halko, Martinsson, Tropp: Finding structure with randomness,
    algorithm 4.4), in numpy: scikit-learn is larger than the rest of a searcher's image.
    """
    width = min(dimension + _SPARE, *sample.shape)
    start = np.random.default_rng(0).standard_normal((sample.shape[1], width), dtype=np.float32)
    basis = _orthonormal(sample @ start)
    for _ in range(_ITERATIONS):
        basis = _orthonormal(sample @ _orthonormal(sample.T @ basis))
    _, strengths, components = np.linalg.svd(basis.T @ sample, full_matrices=False)
    energy = float(np.einsum("ij,ij->", sample, sample, dtype=np.float64))
    kept = np.cumsum(strengths[:dimension].astype(np.float64) ** 2) / energy
    return Reduction(np.ascontiguousarray(components[:dimension])), kept.astype(np.float32)


def _orthonormal(tall: Vectors) -> Vectors:
    """Return an orthonormal basis of the columns' span, by products of large matrices."""
    columns = tall.astype(np.float64)
    squares, axes = np.linalg.eigh(columns.T @ columns)
    # Directions that the columns hardly reach are noise; normalised noise does no harm.
    least = squares[-1] * np.finfo(np.float64).eps
    basis: Vectors = (columns @ (axes / np.sqrt(np.maximum(squares, least)))).astype(np.float32)
    return basis

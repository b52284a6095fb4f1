"""Fewer dimensions that keep the neighbours: truncated SVD, fitted to a sample of the vectors.

PCA without centring: what it keeps best is the dot product, which here is the similarity.
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
"""Dimensions beyond those wanted, that the wanted ones converge."""

_ITERATIONS: Final = 4


@dataclass(frozen=True, slots=True)
class Reduction:
    """components: shape (reduced dimension, dimension), orthonormal rows, strongest first."""

    components: Vectors

    @property
    def dimension(self) -> int:
        """Of the reduced vectors."""
        return len(self.components)

    @classmethod
    def load(cls, path: Path, shape: tuple[int, int]) -> Reduction:
        """The reduction in that file. Raises IndexCorrupt when it isn't one of that shape."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                components = np.ascontiguousarray(stored["components"], dtype=np.float32)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            message = f"{path.name} is no reduction: {error}"
            raise IndexCorrupt(message) from error
        if components.shape != shape:
            message = f"{path.name} has shape {components.shape}, the manifest says {shape}"
            raise IndexCorrupt(message)
        return cls(components)

    def save(self, path: Path) -> None:
        """Write it to a new file."""
        np.savez(path, components=self.components)

    def truncated(self, dimension: int) -> Reduction:
        """Only the strongest `dimension` components."""
        return Reduction(np.ascontiguousarray(self.components[:dimension]))

    def apply(self, vectors: Vectors) -> Vectors:
        """Shape (n, reduced dimension), of unit length."""
        reduced = vectors @ self.components.T
        lengths = np.linalg.norm(reduced, axis=1, keepdims=True)
        unit: Vectors = reduced / np.maximum(lengths, np.finfo(np.float32).tiny)
        return unit


def fit(sample: Vectors, dimension: int) -> tuple[Reduction, Vectors]:
    """A reduction to `dimension`, and the share of energy that its first n components keep.

    The shares (dimension,) ascend; 1 means that nothing is lost. The same sample gives the same
    reduction.

    Randomised, by subspace iteration (Halko, Martinsson, Tropp: Finding structure with randomness,
    algorithm 4.4), in numpy: the library that has it outweighs all else in a searcher's image.
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
    """An orthonormal basis of what the columns span: all products of large matrices, so fast."""
    columns = tall.astype(np.float64)
    squares, axes = np.linalg.eigh(columns.T @ columns)
    # What the columns hardly reach is noise; noise of length one does no harm.
    least = squares[-1] * np.finfo(np.float64).eps
    basis: Vectors = (columns @ (axes / np.sqrt(np.maximum(squares, least)))).astype(np.float32)
    return basis

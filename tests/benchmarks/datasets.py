"""Provides the vectors that engines are compared on: photographs, and synthetic ones.

Queries have the same distribution and are never in the set. Everything is cached in build/.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from services.searcher.index.scan import Vectors, mapped
from tests.benchmarks import photographs

CACHE: Final = Path(__file__).resolve().parents[2] / "build" / "benchmarks"
QUERIES: Final = 1000

Kind = Literal["photographs", "easy", "hard"]

_SEED: Final = 20180501
_BLOCK: Final = 8192
_CLUSTERS: Final = 1000
_QUERY_STREAM: Final = 1
_VECTOR_STREAM: Final = 0
_HELD_OUT_EVERY: Final = 10


@dataclass(frozen=True, slots=True)
class Spec:
    """A set by name; photographs take their count from the files (count 0)."""

    name: str
    kind: Kind
    count: int
    dimension: int


SPECS: Final = {
    spec.name: spec
    for spec in (
        Spec("real", "photographs", 0, 1280),
        Spec("10k-easy", "easy", 10_000, 4096),
        Spec("10k-hard", "hard", 10_000, 4096),
        Spec("100k-easy", "easy", 100_000, 4096),
        Spec("100k-hard", "hard", 100_000, 4096),
        Spec("100k-512-easy", "easy", 100_000, 512),
        Spec("100k-512", "hard", 100_000, 512),
        Spec("1m-256", "hard", 1_000_000, 256),
    )
}


@dataclass(frozen=True, slots=True)
class Dataset:
    """matrix: the file of `vectors` (count, dimension), mapped. queries: (n, dimension)."""

    spec: Spec
    matrix: Path
    vectors: Vectors
    queries: Vectors

    @property
    def title(self) -> str:
        """Return a readable title."""
        count, dimension = self.vectors.shape
        what = "photographs" if self.spec.kind == "photographs" else self.spec.kind
        return f"{count:,} x {dimension:,}, {what}"

    def first(self, count: int) -> Dataset:
        """Return the same set with only the first `count` vectors."""
        return Dataset(self.spec, self.matrix, self.vectors[:count], self.queries)


class Mixture:
    """A distribution of unit vectors: clusters in a space of few dimensions, mapped to many.

    easy: 24 dimensions, mapped linearly, with a little noise. hard: like the layer before a
    network's last: 96 dimensions of falling strength, mapped to outputs whose scales
    differ by orders of magnitude, with noise and a threshold that zeroes most outputs (ReLU).
    """

    def __init__(self, kind: Kind, dimension: int) -> None:
        self._kind = kind
        rng = np.random.default_rng((_SEED, dimension, kind == "hard"))
        latent = 96 if kind == "hard" else 24
        strengths = (1 + np.arange(latent)) ** (-0.4 if kind == "hard" else 0.0)
        strengths /= np.linalg.norm(strengths)
        self._centres = _normal(rng, _CLUSTERS, latent) * strengths.astype(np.float32)
        self._spread = np.float32(0.6) * strengths.astype(np.float32)
        self._weights = _normal(rng, latent, dimension)
        self._scales = rng.lognormal(sigma=1.0, size=dimension).astype(np.float32)

    def draw(self, rows: int, stream: int, block: int) -> Vectors:
        """Return vectors of shape (rows, dimension); the same numbers give the same vectors."""
        rng = np.random.default_rng((_SEED, stream, block))
        chosen = rng.integers(_CLUSTERS, size=rows)
        latent = self._centres[chosen] + self._spread * _normal(rng, rows, self._spread.size)
        seen = latent @ self._weights
        noise = _normal(rng, *seen.shape)
        if self._kind == "hard":
            seen += np.float32(0.3) * noise - np.float32(0.5)
            seen = np.maximum(seen, 0, out=seen) * self._scales
        else:
            seen += np.float32(0.1) * noise
        unit: Vectors = seen / np.linalg.norm(seen, axis=1, keepdims=True)
        return unit


def prepared(spec: Spec, *, count: int | None = None) -> Dataset:
    """Return the set, built if it isn't cached; count: another size of a synthetic set."""
    if spec.kind == "photographs":
        return _photographs(spec)
    count = count or spec.count
    folder = CACHE / "sets" / f"{spec.kind}-{count}x{spec.dimension}"
    matrix = folder / "vectors.f32"
    if not matrix.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = matrix.with_suffix(".partial")
        with partial.open("wb") as out:
            for block in _blocks(spec, count):
                out.write(block.astype("<f4", copy=False).tobytes())
        partial.rename(matrix)
    queries = Mixture(spec.kind, spec.dimension).draw(QUERIES, _QUERY_STREAM, 0)
    return Dataset(spec, matrix, mapped(matrix, count, spec.dimension), queries)


def _blocks(spec: Spec, count: int) -> Iterator[Vectors]:
    mixture = Mixture(spec.kind, spec.dimension)
    for start in range(0, count, _BLOCK):
        rows = min(_BLOCK, count - start)
        yield mixture.draw(rows, _VECTOR_STREAM, start // _BLOCK)


def _photographs(spec: Spec) -> Dataset:
    """Take every tenth photograph as a query, the others as the set."""
    embedded = photographs.embedded(CACHE / "photographs.npy")
    folder = CACHE / "sets" / f"photographs-{len(embedded)}"
    folder.mkdir(parents=True, exist_ok=True)
    asking = np.arange(len(embedded)) % _HELD_OUT_EVERY == 0
    rest = np.ascontiguousarray(embedded[~asking], "<f4")
    matrix = folder / "vectors.f32"
    if not matrix.exists():
        partial = matrix.with_suffix(".partial")
        rest.tofile(partial)
        partial.rename(matrix)
    return Dataset(
        spec, matrix, mapped(matrix, *rest.shape), np.ascontiguousarray(embedded[asking])
    )


def _normal(rng: np.random.Generator, rows: int, columns: int) -> Vectors:
    return rng.standard_normal((rows, columns), dtype=np.float32)

"""Implements inverted lists (IVF): vectors by nearest centroid; a search scans a few lists.

Spherical k-means on a sample finds the centroids (Sivic and Zisserman: Video Google, 2003). The
vectors of a list are contiguous in the file, so that a list is a single matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.searcher.index import scan
from services.searcher.index.methods.method import reading
from services.searcher.index.scan import Positions, Vectors
from services.searcher.progress import Progress
from services.shared.errors import IndexCorrupt
from services.shared.volume.manifest import LISTED, LISTS

_SAMPLE_A_LIST: Final = 64
_ITERATIONS: Final = 8
_BLOCK_ROWS: Final = 8192


class InvertedLists:
    """The lists of a file; thread-safe."""

    def __init__(
        self, rows: Vectors, centroids: Vectors, edges: Positions, positions: Positions
    ) -> None:
        """rows: (n, dimension), list after list. centroids: (lists, dimension), of unit length.

        edges: the start of each list and the end of the last, (lists + 1,). positions: of each row
        in the collection.
        """
        self._rows = rows
        self._centroids = np.ascontiguousarray(centroids.T)
        self._sizes = np.diff(edges)
        self._edges: list[int] = edges.tolist()
        self._positions = positions

    @classmethod
    def open(
        cls, directory: Path, rows: int, dimension: int, lists: int, count: int
    ) -> InvertedLists:
        """Map the files that `write` wrote for `rows` of `count` items. Raises IndexCorrupt."""
        path = directory / LISTS
        with reading(path), np.load(path, allow_pickle=False) as stored:
            centroids = stored["centroids"].astype(np.float32, copy=False)
            edges = stored["edges"].astype(np.int64, copy=False)
            positions = stored["positions"].astype(np.int64, copy=False)
        sound = (
            centroids.shape == (lists, dimension)
            and edges.shape == (lists + 1,)
            and (edges[0], edges[-1]) == (0, rows)
            and bool((np.diff(edges) >= 0).all())
            and positions.shape == (rows,)
            and 0 <= positions.min() <= positions.max() < count
        )
        if not sound:
            message = (
                f"{path.name} does not hold {rows} rows in {lists} lists of {dimension} dimensions"
            )
            raise IndexCorrupt(message)
        matrix = np.memmap(directory / LISTED, "<f4", mode="r", shape=(rows, dimension))
        return cls(matrix.view(np.ndarray), centroids, edges, positions)

    def nearest(self, queries: Vectors, probes: int, depth: int) -> list[Positions]:
        """Return the best `depth` positions of the nearest `probes` lists for each query.

        Best first; more lists are searched if these contain fewer than `depth`.
        """
        similarities = queries @ self._centroids
        probes = min(probes, len(self._sizes))
        chosen = np.argpartition(-similarities, probes - 1, axis=1)[:, :probes]
        wanted = min(depth, len(self._rows))
        short = np.take(self._sizes, chosen).sum(axis=1) < wanted
        return [
            self._search(query, self._enough(similarity, wanted) if few else some.tolist(), depth)
            for query, similarity, some, few in zip(
                queries, similarities, chosen, short, strict=True
            )
        ]

    def _search(self, query: Vectors, lists: Sequence[int], depth: int) -> Positions:
        spans = [slice(self._edges[number], self._edges[number + 1]) for number in lists]
        dots = np.concatenate([self._rows[span] @ query for span in spans])
        positions = np.concatenate([self._positions[span] for span in spans])
        return scan.best(positions, dots, depth)[0]

    def _enough(self, similarities: Vectors, wanted: int) -> list[int]:
        """Return the nearest lists that together hold enough vectors."""
        order = np.argsort(-similarities)
        held = np.cumsum(self._sizes[order])
        enough: list[int] = order[: int(np.searchsorted(held, wanted)) + 1].tolist()
        return enough


def stored_centroids(directory: Path) -> Vectors:
    """Return the stored centroids (lists, dimension)."""
    with np.load(directory / LISTS, allow_pickle=False) as stored:
        centroids: Vectors = stored["centroids"]
    return centroids


def train(matrix: Vectors, rows: Positions, lists: int, progress: Progress) -> Vectors:
    """Find centroids (lists, dimension) of unit length on a sample of those rows of the matrix.

    Needs at least `lists` rows. The same rows give the same centroids.
    """
    rng = np.random.default_rng(0)
    drawn = rng.choice(rows, min(len(rows), _SAMPLE_A_LIST * lists), replace=False)
    sample = np.take(matrix, np.sort(drawn), axis=0)
    centroids = sample[rng.choice(len(sample), lists, replace=False)]
    for _ in range(_ITERATIONS):
        progress.advance(0)
        nearest = _assigned(sample, centroids)
        order, sizes = np.argsort(nearest, kind="stable"), np.bincount(nearest, minlength=lists)
        filled = np.flatnonzero(sizes)
        begins = (np.cumsum(sizes) - sizes)[filled]
        sums = np.add.reduceat(np.take(sample, order, axis=0), begins, axis=0)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centroids[filled] = sums / np.maximum(lengths, np.finfo(np.float32).tiny)
    return centroids


def write(
    directory: Path, matrix: Vectors, rows: Positions, centroids: Vectors, progress: Progress
) -> None:
    """Write those rows of the matrix (n, dimension) as lists; takes 20 bytes of memory per row."""
    progress.begin("sorting into lists", 2 * len(rows), "vectors")
    nearest = np.empty(len(rows), np.int32)
    for start in range(0, len(rows), _BLOCK_ROWS):
        some = rows[start : start + _BLOCK_ROWS]
        nearest[start : start + len(some)] = _assigned(np.take(matrix, some, axis=0), centroids)
        progress.advance(len(some))
    positions = rows[np.argsort(nearest, kind="stable")]
    with (directory / LISTED).open("wb") as out:
        for start in range(0, len(rows), _BLOCK_ROWS):
            some = positions[start : start + _BLOCK_ROWS]
            out.write(np.take(matrix, some, axis=0).astype("<f4", copy=False).tobytes())
            progress.advance(len(some))
    edges = np.concatenate([[0], np.cumsum(np.bincount(nearest, minlength=len(centroids)))])
    np.savez(directory / LISTS, centroids=centroids, edges=edges, positions=positions)


def _assigned(vectors: Vectors, centroids: Vectors) -> NDArray[np.int64]:
    """Return the nearest centroid of each vector, computed in blocks."""
    columns = np.ascontiguousarray(centroids.T)
    return np.concatenate(
        [
            np.argmax(vectors[start : start + _BLOCK_ROWS] @ columns, axis=1)
            for start in range(0, len(vectors), _BLOCK_ROWS)
        ]
    )

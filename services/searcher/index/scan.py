"""Finds exact nearest rows by matrix products, in a whole matrix or in some of its rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""Shape (n, dimension); rows are unit length."""

Positions = NDArray[np.int64]
"""Row numbers of a matrix."""

BATCH_QUERIES: Final = 32
"""Queries that share a pass over the matrix."""

_BLOCK_ROWS: Final = 16_384
_CHUNK: Final = 64
_GATHERED_ROWS: Final = 4096
_NONE: Final[Positions] = np.empty(0, np.int64)


def mapped(path: Path, count: int, dimension: int) -> Vectors:
    """Map a matrix file (count, dimension), float32 little-endian, read-only."""
    matrix: Vectors = np.memmap(path, "<f4", mode="r", shape=(count, dimension)).view(np.ndarray)
    return matrix


def nearest(
    matrix: Vectors,
    queries: Vectors,
    k: int,
    *,
    without: Positions = _NONE,
    block_rows: int = _BLOCK_ROWS,
) -> list[tuple[Positions, Vectors]]:
    """Return for each query (n, dimension) the k rows of highest dot product, and the products.

    Highest first; fewer than k only if the matrix has fewer rows. Rows in `without`
    (ascending) are never found. The products of `block_rows` rows are in memory at a time.
    """
    found: list[tuple[Positions, Vectors]] = []
    k = min(k, len(matrix) - len(without))
    for start in range(0, len(queries), BATCH_QUERIES):
        found += _nearest(matrix, queries[start : start + BATCH_QUERIES], k, without, block_rows)
    return found


def nearest_among(
    matrix: Vectors,
    positions: Positions,
    query: Vectors,
    k: int,
    *,
    block_rows: int = _GATHERED_ROWS,
) -> tuple[Positions, Vectors]:
    """Return the same for a query (dimension,) among the rows at `positions`."""
    found: tuple[Positions, Vectors] = (positions[:0], query[:0])
    for start in range(0, len(positions), block_rows):
        some = positions[start : start + block_rows]
        dots = np.take(matrix, some, axis=0) @ query
        found = best(np.append(found[0], some), np.append(found[1], dots), k)
    return found


def ranked(
    matrix: Vectors, query: Vectors, positions: Positions | None = None
) -> tuple[Positions, Vectors]:
    """Return all rows, or those at `positions`, by dot product with a query (dimension,).

    Highest first, then by position. Takes a pass, and memory of a number per row.
    """
    if positions is None:
        positions = np.arange(len(matrix))
        parts = [dots for _, dots in _products(matrix, query, _NONE, _BLOCK_ROWS)]
    else:
        parts = [
            np.take(matrix, positions[start : start + _GATHERED_ROWS], axis=0) @ query
            for start in range(0, len(positions), _GATHERED_ROWS)
        ]
    dots: Vectors = np.concatenate(parts) if parts else query[:0]
    order = np.argsort(-dots, kind="stable")
    return positions[order], dots[order]


def _nearest(
    matrix: Vectors, queries: Vectors, k: int, without: Positions, block_rows: int
) -> list[tuple[Positions, Vectors]]:
    if len(queries) == 1:
        return [_nearest_one(matrix, queries[0], k, without, block_rows)]
    # Queries are columns: BLAS multiplies a tall block by a few columns much faster than the
    # transposes.
    columns = np.ascontiguousarray(queries.T)
    bounds = np.full(len(queries), -np.inf, np.float32)
    kept: list[tuple[Positions, Positions, Vectors]] = []
    for start, dots in _products(matrix, columns, without, block_rows):
        bounds = np.maximum(bounds, _lower_bounds(dots, k))
        hits = np.flatnonzero(dots >= bounds)
        rows, asked = np.divmod(hits, len(queries))
        kept.append((asked, rows + start, dots.ravel()[hits]))
    asked, positions, scores = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    order = np.argsort(asked, kind="stable")
    edges = np.searchsorted(asked[order], np.arange(1, len(queries)))
    return [best(positions[some], scores[some], k) for some in np.split(order, edges)]


def _nearest_one(
    matrix: Vectors, query: Vectors, k: int, without: Positions, block_rows: int
) -> tuple[Positions, Vectors]:
    """Return the same for a query (dimension,), without grouping, in half the time."""
    bound: Vectors = np.full((), -np.inf, np.float32)
    kept: list[tuple[Positions, Vectors]] = []
    for start, dots in _products(matrix, query, without, block_rows):
        bound = np.maximum(bound, _lower_bounds(dots, k))
        hits = np.flatnonzero(dots >= bound)
        kept.append((hits + start, dots[hits]))
    positions, scores = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    return best(positions, scores, k)


def _products(
    matrix: Vectors, columns: Vectors, without: Positions, block_rows: int
) -> Iterator[tuple[int, Vectors]]:
    """Yield the start and the products of each block of rows; rows in `without` get -inf."""
    for start in range(0, len(matrix), block_rows):
        dots = matrix[start : start + block_rows] @ columns
        if len(without):
            first, last = np.searchsorted(without, (start, start + block_rows))
            dots[without[first:last] - start] = -np.inf
        yield start, dots


def _lower_bounds(dots: Vectors, k: int) -> Vectors:
    """Return for each column a value that at least k of its entries reach.

    Takes the k-th largest of the chunks' maxima: many times cheaper than partitioning the column.
    """
    rows, columns = len(dots), dots.shape[1:]
    chunks = rows // _CHUNK
    if chunks < k:
        if rows <= k:
            return np.full(columns, -np.inf, np.float32)
        bounds: Vectors = np.partition(dots, rows - k, axis=0)[rows - k]
        return bounds
    maxima = dots[: chunks * _CHUNK].reshape(chunks, _CHUNK, *columns).max(axis=1)
    highest: Vectors = np.partition(maxima, chunks - k, axis=0)[chunks - k]
    return highest


def best(positions: Positions, dots: Vectors, k: int) -> tuple[Positions, Vectors]:
    """Return the k positions of highest dot product (both (n,)) and the products, highest first."""
    if len(dots) > 4 * k:  # only the best need sorting
        chosen = np.argpartition(-dots, k)[: k + 1]
        chosen = np.flatnonzero(dots >= dots[chosen].min())
        positions, dots = positions[chosen], dots[chosen]
    # Ties by position, so that the same question gets the same answer.
    order = np.lexsort((positions, -dots))[:k]
    return positions[order], dots[order]

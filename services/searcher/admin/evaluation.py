"""Judges an index version by its own labels: leave-one-out precision@k and top-1."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.searcher.admin import versions
from services.searcher.index.scan import Vectors
from services.shared.errors import BuildFailed
from services.shared.volume.items import ITEMS, Item, ItemCatalog
from services.shared.volume.manifest import VECTORS
from services.shared.volume.volume import Volume

_BLOCK_ROWS: Final = 512
_BLOCK_COSINES: Final = 2**24


@dataclass(frozen=True, slots=True)
class Score:
    """The share of correct labels among the k nearest, and at the nearest, over `count` queries."""

    label: str
    count: int
    precision: float
    top1: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores by label, and of all queries."""

    k: int
    classes: tuple[Score, ...]
    overall: Score


def evaluate(volume: Volume, collection: str, version: str, *, k: int = 10) -> Evaluation:
    """Query by every item for its k nearest others by exact cosine; correct means the same label.

    Raises IndexCorrupt, or BuildFailed when there are too few items to judge.
    """
    # A damaged file would cause an error of SQLite, or wrong scores.
    versions.verify(volume, collection, version)
    items, vectors = load(volume, collection, version)
    if len(items) <= k:
        message = (
            f"{collection} has too few items, {len(items)}, to judge {k} neighbours of each: "
            "give a smaller -k, or add images"
        )
        raise BuildFailed(message)
    labels = np.array([item.label for item in items])
    if len(set(labels.tolist())) == 1:
        message = f"all items of {collection} have one label: there are no labels to compare"
        raise BuildFailed(message)
    right = np.concatenate(
        [labels[found] == labels[rows][:, None] for rows, found in _nearest(vectors, k)]
    )
    names = sorted(set(labels.tolist()))
    classes = tuple(_score(name, right[labels == name]) for name in names)
    return Evaluation(k, classes, _score("all", right))


def load(volume: Volume, collection: str, version: str) -> tuple[list[Item], Vectors]:
    """Return the items and the mapped vectors (count, dimension) of a version."""
    manifest = volume.manifest(collection, version)
    directory = volume.directory(collection, version)
    with contextlib.closing(ItemCatalog(directory / ITEMS)) as catalog:
        items = list(catalog)
    vectors: Vectors = np.memmap(
        directory / VECTORS,
        dtype="<f4",
        mode="r",
        shape=(manifest.count, manifest.dimension),
    )
    return items, vectors


def nearest_others(vectors: Vectors, rows: Sequence[int], k: int) -> NDArray[np.int64]:
    """Return the positions nearest to each row, without the row, nearest first; (len(rows), k)."""
    cosines = np.array(vectors[list(rows)]) @ vectors.T
    cosines[np.arange(len(rows)), list(rows)] = -np.inf
    nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(cosines, nearest, axis=1), axis=1)
    return np.take_along_axis(nearest, order, axis=1)


def _nearest(vectors: Vectors, k: int) -> Iterator[tuple[range, NDArray[np.int64]]]:
    block_rows = min(_BLOCK_ROWS, max(1, _BLOCK_COSINES // len(vectors)))
    for start in range(0, len(vectors), block_rows):
        rows = range(start, min(start + block_rows, len(vectors)))
        yield rows, nearest_others(vectors, rows, k)


def _score(label: str, right: NDArray[np.bool_]) -> Score:
    return Score(label, len(right), float(right.mean()), float(right[:, 0].mean()))

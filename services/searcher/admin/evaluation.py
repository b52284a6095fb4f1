"""Evaluates an index version by its own labels: each labelled image searches the others."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

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
    """Holds the averages of a number of queries.

    Attributes:
        label: the label of the queries; "" for those of all labels.
        count: the number of queries.
        precision: P@k, the mean share of the k nearest that have the query's label.
        average_precision: mAP@k, which also counts how far in front they are.
        top1: the share of queries whose nearest image has their label.
        mistaken_for: the most frequent other label among the k nearest; None without one.
        mistaken_share: the share of the k nearest that have that label.
    """

    label: str
    count: int
    precision: float
    average_precision: float
    top1: float
    mistaken_for: str | None = None
    mistaken_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Holds the scores by label, and their averages.

    Attributes:
        k: the number of neighbours of each query.
        unlabelled: how many images were left out, since they have no label.
        single: how many images were left out, since no other image has their label.
        classes: the scores by label.
        macro: the averages over the labels, each of the same weight.
        overall: the averages over the queries.
    """

    k: int
    unlabelled: int
    single: int
    classes: tuple[Score, ...]
    macro: Score
    overall: Score

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as JSON values."""
        averages = {
            name: {key: value for key, value in asdict(score).items() if key in _AVERAGES}
            for name, score in (("macro_average", self.macro), ("all_images", self.overall))
        }
        left_out = {"unlabelled": self.unlabelled, "alone_with_label": self.single}
        labels = [asdict(score) for score in self.classes]
        return {"k": self.k, "left_out": left_out, "labels": labels, **averages}


_AVERAGES: Final = frozenset({"count", "precision", "average_precision", "top1"})


def evaluate(
    volume: Volume,
    collection: str,
    version: str,
    *,
    k: int = 10,
    block_cosines: int = _BLOCK_COSINES,
) -> Evaluation:
    """Search by each labelled image for its k nearest others, by exact cosine.

    An image without a label, or with a label that no other image has, is no query. Images without
    a label are no neighbours either: nobody knows whether they are right.

    Raises IndexCorrupt, or BuildFailed where there are too few images to compare.
    """
    # A damaged file would cause an error of SQLite, or wrong scores.
    versions.verify(volume, collection, version)
    items, vectors = load(volume, collection, version)
    labels = _numbered(items)
    counts = Counter(labels[labels >= 0].tolist())
    _require_comparable(collection, counts, k)
    rows = np.flatnonzero(labels >= 0)
    block_rows = min(_BLOCK_ROWS, max(1, block_cosines // len(vectors)))
    near = _nearest(vectors, rows, labels < 0, k, block_rows)
    found = np.concatenate([labels[positions] for positions in near])
    names = {int(labels[item.position]): item.label for item in items if item.label}
    classes = tuple(
        _score(found[queries], own, names)
        for own, queries in _by_label(labels[rows])
        if counts[own] > 1
    )
    return Evaluation(
        k=k,
        unlabelled=len(items) - len(rows),
        single=sum(count == 1 for count in counts.values()),
        classes=classes,
        macro=_mean(classes, [1] * len(classes)),
        overall=_mean(classes, [score.count for score in classes]),
    )


def _numbered(items: Sequence[Item]) -> NDArray[np.int32]:
    """Return the number of each item's label, in the order of the names; -1 without a label."""
    names = sorted({item.label for item in items} - {""})
    numbers = {"": -1, **{name: number for number, name in enumerate(names)}}
    return np.array([numbers[item.label] for item in items], np.int32)


def _require_comparable(collection: str, counts: Mapping[int, int], k: int) -> None:
    labelled = sum(counts.values())
    if labelled <= k:
        message = (
            f"{collection} has too few images with labels, {labelled}, to compare {k} neighbours "
            "of each: give a smaller -k, or add images in sub-folders named after their labels"
        )
        raise BuildFailed(message)
    if len(counts) in {1, labelled}:
        state = "one label for all images" if len(counts) == 1 else "no label of two images"
        message = f"{collection} has {state}: there are no labels to compare"
        raise BuildFailed(message)


def _by_label(labels: NDArray[np.int32]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield each label's number with the positions that have it."""
    order = np.argsort(labels, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        yield int(labels[group[0]]), group


def _score(found: NDArray[np.int32], own: int, names: Mapping[int, str]) -> Score:
    """Score the queries of a label.

    Args:
        found: the label numbers of the nearest images, shape (queries, k), nearest first.
        own: the number of the label.
        names: the labels by number.
    """
    right = found == own
    count, k = right.shape
    precisions = right.cumsum(axis=1) / np.arange(1, k + 1)
    average_precision = (precisions * right).sum(axis=1) / min(k, count - 1)
    others = Counter(found[~right].tolist())
    # Of equally frequent labels the first by name.
    most, times = min(others.items(), key=lambda one: (-one[1], one[0]), default=(None, 0))
    return Score(
        label=names[own],
        count=count,
        precision=float(right.mean()),
        average_precision=float(average_precision.mean()),
        top1=float(right[:, 0].mean()),
        mistaken_for=None if most is None else names[most],
        mistaken_share=times / found.size,
    )


def _mean(scores: Sequence[Score], weights: Sequence[int]) -> Score:
    """Return the weighted mean of scores."""
    rows = [(one.precision, one.average_precision, one.top1) for one in scores]
    precision, average_precision, top1 = np.average(rows, axis=0, weights=weights).tolist()
    count = sum(score.count for score in scores)
    return Score("", count, precision, average_precision, top1)


def load(volume: Volume, collection: str, version: str) -> tuple[list[Item], Vectors]:
    """Return the items and the vectors (count, dimension), mapped, of a version."""
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


def nearest_others(
    vectors: Vectors,
    rows: Sequence[int],
    k: int,
    left_out: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Return the k positions nearest to each row, nearest first, without the row itself.

    Args:
        vectors: shape (count, dimension).
        rows: the positions to search by.
        k: fewer than there are other vectors.
        left_out: the positions that are no neighbours, shape (count,).

    Returns:
        Positions, shape (len(rows), k).
    """
    cosines = np.array(vectors[list(rows)]) @ vectors.T
    cosines[np.arange(len(rows)), list(rows)] = -np.inf
    if left_out is not None:
        cosines[:, left_out] = -np.inf
    nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(cosines, nearest, axis=1), axis=1)
    return np.take_along_axis(nearest, order, axis=1)


def _nearest(
    vectors: Vectors,
    rows: NDArray[np.int64],
    left_out: NDArray[np.bool_],
    k: int,
    block_rows: int,
) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), block_rows):
        yield nearest_others(vectors, rows[start : start + block_rows].tolist(), k, left_out)

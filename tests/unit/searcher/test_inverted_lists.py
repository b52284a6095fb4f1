"""Inverted lists find the rows of a scan, and damaged files are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from services.searcher.index import scan
from services.searcher.index.methods import inverted_lists
from services.searcher.index.methods.inverted_lists import InvertedLists
from services.searcher.index.scan import Positions, Vectors
from services.searcher.progress import NoProgress
from services.shared.errors import IndexCorrupt
from tests.support.volume import unit_vectors

COUNT, DIMENSION, LISTS = 2000, 8, 40


def _written(
    directory: Path, vectors: Vectors, *, lists: int = LISTS, rows: Positions | None = None
) -> InvertedLists:
    count, dimension = vectors.shape
    rows = np.arange(count) if rows is None else rows
    centroids = inverted_lists.train(vectors, rows, lists, NoProgress())
    assert np.linalg.norm(centroids, axis=1) == pytest.approx(1, abs=1e-5)
    inverted_lists.write(directory, vectors, rows, centroids, NoProgress())
    return InvertedLists.open(directory, len(rows), dimension, lists, count)


def _share_found(lists: InvertedLists, vectors: Vectors, probes: int) -> float:
    queries = unit_vectors(100, seed=2, dimension=DIMENSION)
    right = [positions for positions, _ in scan.nearest(vectors, queries, 10)]
    found = lists.nearest(queries, probes, 10)
    shares = [np.isin(*pair).mean() for pair in zip(right, found, strict=True)]
    return float(np.mean(shares))


def test_all_lists_find_what_a_scan_finds(tmp_path: Path) -> None:
    """Every row is in one list, so that all lists together find all rows in order."""
    vectors = unit_vectors(COUNT)
    lists, queries = _written(tmp_path, vectors), unit_vectors(40, seed=2)
    scanned = scan.nearest(vectors, queries, 25)
    for found, (right, _) in zip(lists.nearest(queries, LISTS, 25), scanned, strict=True):
        assert found.tolist() == right.tolist()


def test_more_probes_find_more(tmp_path: Path) -> None:
    """A few of the lists hold most of the neighbours, and a single list holds few."""
    vectors = unit_vectors(COUNT)
    lists = _written(tmp_path, vectors)
    shares = [_share_found(lists, vectors, probes) for probes in (1, 4, 16, LISTS, 10 * LISTS)]
    assert shares == sorted(shares)
    assert shares[0] < 0.6 < shares[1] < shares[-1] == 1.0


def test_as_many_lists_are_searched_as_the_depth_needs(tmp_path: Path) -> None:
    """When a list has too few rows for the depth, the next nearest are searched, too."""
    lists = _written(tmp_path, unit_vectors(COUNT))
    for depth in (1, 300, COUNT, 2 * COUNT):
        (found,) = lists.nearest(unit_vectors(1, seed=3), 1, depth)
        assert len(set(found.tolist())) == len(found) == min(depth, COUNT)


def test_only_the_rows_given_are_found(tmp_path: Path) -> None:
    """The rows found have their positions in the whole."""
    vectors, rows = unit_vectors(COUNT), np.arange(1, COUNT, 3)
    lists = _written(tmp_path, vectors, rows=rows)
    (found,) = lists.nearest(vectors[:1], LISTS, COUNT)
    assert sorted(found.tolist()) == rows.tolist()


def test_equal_vectors_leave_lists_empty(tmp_path: Path) -> None:
    """With more lists than different vectors, some lists are empty, and no row is lost."""
    vectors = np.repeat(unit_vectors(5), 100, axis=0)
    lists = _written(tmp_path, vectors)
    (found,) = lists.nearest(vectors[:1], 3, 100)
    assert sorted(found.tolist()) == list(range(100))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("centroids", lambda stored: stored[1:]),
        ("edges", lambda stored: stored[::-1]),
        ("edges", lambda stored: stored + 1),
        ("positions", lambda stored: stored[1:]),
        ("positions", lambda stored: stored + 1),
        ("positions", lambda stored: np.full(len(stored), "x")),
    ],
)
def test_a_file_without_valid_lists_is_refused(tmp_path: Path, name: str, change: object) -> None:
    """A file of another shape, or with positions out of range, is a named error."""
    _written(tmp_path, unit_vectors(COUNT))
    path = tmp_path / "lists.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    assert callable(change)
    np.savez(path, **{**arrays, name: change(arrays[name])})
    with pytest.raises(IndexCorrupt, match=r"lists\.npz"):
        InvertedLists.open(tmp_path, COUNT, DIMENSION, LISTS, COUNT)

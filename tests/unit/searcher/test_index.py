"""An open index: exact order, refusals by name, and no damaged file is ever mapped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from services.searcher.index import Index
from services.shared.collection import Volume
from services.shared.errors import IndexCorrupt, InvalidVector
from tests.support.volume import DIMENSION, items, publish_version, unit_vectors

COUNT = 300


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """A volume with one collection of random vectors."""
    volume = Volume(tmp_path)
    publish_version(volume, "birds", unit_vectors(COUNT), items(COUNT))
    return volume


def _open(volume: Volume) -> Index:
    version = volume.active("birds")
    return Index.open(volume.directory("birds", version), volume.manifest("birds", version))


def test_neighbours_are_those_of_exact_search(volume: Volume) -> None:
    """Recall against brute force is what the manifest promises; order and distances are exact."""
    index, vectors = _open(volume), unit_vectors(COUNT)
    hits = 0
    for query in unit_vectors(50, seed=2):
        cosines = vectors @ query
        exact = np.argsort(-cosines)[:10].tolist()
        found = index.search(query, 10)
        hits += len(set(exact) & {position for position, _ in found})
        distances = [distance for _, distance in found]
        assert distances == sorted(distances)
        for position, distance in found:
            assert distance == pytest.approx(np.sqrt(2 - 2 * cosines[position]), abs=1e-3)
    assert hits / 500 >= 0.97


def test_an_item_finds_itself_with_similarity_one(volume: Volume) -> None:
    """A stored vector's nearest neighbour is its own item."""
    neighbor = _open(volume).neighbors(unit_vectors(COUNT)[17], 3, None)[0]
    assert neighbor.item_id == items(COUNT)[17].item_id
    assert neighbor.similarity == pytest.approx(1.0, abs=1e-5)
    assert neighbor.attributes == {"number": "17"}


def test_max_distance_leaves_out_what_is_farther(volume: Volume) -> None:
    """The bound is on the angular distance, and may leave nothing."""
    index, query = _open(volume), unit_vectors(1, seed=5)[0]
    all_of_them = index.neighbors(query, 10, None)
    bound = all_of_them[4].distance
    assert index.neighbors(query, 10, bound) == all_of_them[:5]
    assert index.neighbors(query, 10, 0.0) == []


@pytest.mark.parametrize("count", [1, 2, 7])
def test_more_neighbours_than_items_gives_them_all(tmp_path: Path, count: int) -> None:
    """A tiny collection answers with everything it has."""
    volume = Volume(tmp_path)
    publish_version(volume, "birds", unit_vectors(count), items(count))
    assert len(_open(volume).search(unit_vectors(1, seed=9)[0], 100)) == count


@pytest.mark.parametrize(
    "query",
    [
        np.zeros(DIMENSION, "f4"),
        np.full(DIMENSION, np.nan, "f4"),
        np.full(DIMENSION, np.inf, "f4"),
        np.full(DIMENSION, 3.0, "f4"),
        np.ones(DIMENSION + 1, "f4"),
        np.ones((1, DIMENSION), "f4"),
    ],
    ids=["zero", "nan", "inf", "too long", "too many", "matrix"],
)
def test_a_useless_query_is_refused(
    volume: Volume, query: np.ndarray[tuple[int], np.dtype[np.float32]]
) -> None:
    """Annoy would answer these with ten plausible ids."""
    with pytest.raises(InvalidVector):
        _open(volume).search(query, 10)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _truncate_at_a_node(path: Path) -> None:
    node = 12 + 4 * DIMENSION
    path.write_bytes(path.read_bytes()[: path.stat().st_size // node // 2 * node])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGES = [_truncate, _truncate_at_a_node, _flip, _empty, Path.unlink]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
@pytest.mark.parametrize("name", ["index.ann", "vectors.f32", "items.sqlite"])
def test_a_damaged_file_is_refused_before_it_is_mapped(
    volume: Volume, name: str, damage: Callable[[Path], None]
) -> None:
    """Truncation, a flipped bit or a missing file is a named error, never a crash or a lie."""
    damage(volume.directory("birds", volume.active("birds")) / name)
    with pytest.raises(IndexCorrupt, match=name):
        _open(volume)


def test_files_of_another_dimension_are_refused(volume: Volume) -> None:
    """An index whose files fit their hashes but not each other fails its canary queries."""
    version = volume.active("birds")
    path = volume.directory("birds", version) / "manifest.json"
    raw = json.loads(path.read_text())
    raw.update(dimension=DIMENSION // 2, count=COUNT * 2)
    path.write_text(json.dumps(raw))
    with pytest.raises(IndexCorrupt):
        _open(volume)

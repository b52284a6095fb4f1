"""Opening an index version refuses damaged files by name before mapping them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.searcher.index.index import Index
from services.shared.errors import IndexCorrupt, InvalidVector
from services.shared.volume.manifest import MethodName
from services.shared.volume.volume import Volume
from tests.support.volume import DIMENSION, items, publish_version, unit_vectors

COUNT = 300
FILES: dict[str, MethodName] = {
    "annoy-0.ann": "annoy",
    "annoy-1.ann": "annoy",
    "vectors.f32": "exact",
    "items.sqlite": "exact",
    "reduced.f32": "reduced",
    "reduction.npz": "reduced",
    "lists.f32": "reduced-ivf",
    "lists.npz": "reduced-ivf",
    "graph.usearch": "reduced-hnsw",
}


def _publish(tmp_path: Path, method: MethodName) -> Volume:
    volume = Volume(tmp_path)
    publish_version(
        volume, "birds", unit_vectors(COUNT), items(COUNT), method=method, shard_items=200
    )
    return volume


def _open(volume: Volume) -> Index:
    return Index.open(volume, "birds", volume.active("birds"))


def _path(volume: Volume, name: str) -> Path:
    path = volume.directory("birds", volume.active("birds")) / name
    path.chmod(0o644)
    return path


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _truncate_at_a_node(path: Path) -> None:
    node = 12 + 4 * DIMENSION
    path.write_bytes(path.read_bytes()[: path.stat().st_size // node // 2 * node])


def _lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 44)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x01
    path.write_bytes(content)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _replace_with_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = [
    _truncate, _truncate_at_a_node, _lengthen, _flip, _empty, _replace_with_a_folder, Path.unlink,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_refused_before_it_is_mapped(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    """Truncation, a flipped bit or a missing file is a named error, never a crash."""
    volume = _publish(tmp_path, FILES[name])
    damage(_path(volume, name))
    with pytest.raises(IndexCorrupt, match=name):
        _open(volume)


@pytest.mark.parametrize(
    "change", [{"lists": 0}, {"probes": 0}, {"probes": COUNT}, {"dimension": 5}]
)
def test_a_manifest_that_does_not_fit_its_lists_is_refused(
    tmp_path: Path, change: dict[str, int]
) -> None:
    """The number and dimensions of the lists must match, and probes must not exceed the lists."""
    volume = _publish(tmp_path, "reduced-ivf")
    path = _path(volume, "manifest.json")
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({**raw, "plan": {**raw["plan"], **change}}))
    with pytest.raises(IndexCorrupt):
        _open(volume)


@pytest.mark.parametrize(
    "change",
    [
        {"dimension": DIMENSION // 2, "count": COUNT * 2},
        {"dimension": DIMENSION // 2},
        {"count": COUNT - 1},
        {"metric": "euclidean"},
        {"format": 1},
        {"canaries": [COUNT]},
        {"collection": "fish"},
        {"shards": []},
        {"shards": [{"file": "annoy-0.ann", "first": 0, "count": 200}]},
        {"shards": [{"file": "../annoy-0.ann", "first": 0, "count": COUNT}]},
        {"plan": {"method": "magic", "dimension": 8, "trees": 1, "search_k": 1, "rerank": 1}},
        {"plan": {"method": "annoy", "dimension": 8, "trees": 1, "search_k": 0, "rerank": 1}},
        {"plan": {"method": "annoy", "dimension": 4, "trees": 1, "search_k": 9, "rerank": 1}},
        {"plan": {"method": "reduced", "dimension": 6, "trees": 0, "search_k": 0, "rerank": 9}},
        {"plan": {"method": "reduced-hnsw", "dimension": 6, "search_k": 9, "rerank": 9}},
        {"plan": "annoy"},
        {"files": {}},
        {"count": None},
    ],
    ids=str,
)
def test_a_manifest_that_does_not_fit_its_files_is_refused(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    """Wrong sizes, another format, or a foreign shard is refused by name."""
    volume = _publish(tmp_path, "annoy")
    path = _path(volume, "manifest.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(IndexCorrupt):
        _open(volume)


def test_vectors_that_are_not_those_of_the_trees_fail_the_canaries(tmp_path: Path) -> None:
    """Files that fit their hashes but not each other fail the canaries."""
    volume = _publish(tmp_path, "annoy")
    path = _path(volume, "manifest.json")
    vectors = _path(volume, "vectors.f32")
    vectors.write_bytes(np.zeros((COUNT, DIMENSION), "<f4").tobytes())
    raw = json.loads(path.read_text())
    from services.searcher.index.index import stored_file  # noqa: PLC0415 (used once, to forge a hash)

    raw["files"]["vectors.f32"]["sha256"] = stored_file(vectors).sha256
    path.write_text(json.dumps(raw))
    with pytest.raises(IndexCorrupt, match="canary"):
        _open(volume)


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
    tmp_path: Path, query: np.ndarray[tuple[int], np.dtype[np.float32]]
) -> None:
    """Annoy would answer these queries with ten plausible ids."""
    with pytest.raises(InvalidVector):
        _open(_publish(tmp_path, "exact")).check_vector(query)


def test_published_files_can_not_be_written_by_mistake(tmp_path: Path) -> None:
    """Published files are read-only."""
    volume = _publish(tmp_path, "annoy")
    directory = volume.directory("birds", volume.active("birds"))
    assert {path.stat().st_mode & 0o222 for path in directory.iterdir()} == {0}

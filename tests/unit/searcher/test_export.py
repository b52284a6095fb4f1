"""Exports: the files that other programs read hold what the index holds."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from services.searcher.admin import export as exporting
from services.searcher.progress import NoProgress
from services.shared.errors import FileUnusable, MissingExtra, UnknownCollection
from services.shared.volume.volume import Volume
from tests.support.volume import MODEL, items, publish_version, unit_vectors

COUNT = 30


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """A collection of 30 items."""
    volume = Volume(tmp_path / "root")
    publish_version(volume, "birds", unit_vectors(COUNT), items(COUNT))
    return volume


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read 7 items at a time, so that a collection is several blocks."""
    monkeypatch.setattr(exporting, "Content", partial(exporting.Content, block_items=7))


def _expected() -> list[Mapping[str, object]]:
    return [
        {"item_id": item.item_id, "label": item.label, "path": item.path,
         "attributes": dict(item.attributes)}
        for item in items(COUNT)
    ]  # fmt: skip


def test_numpy_and_json_lines(volume: Volume, tmp_path: Path) -> None:
    """Row n of the vectors is line n of the items; the folder names version and model."""
    out = tmp_path / "out"
    manifest = exporting.export(volume, "birds", out, exporting.NumpyWriter(), NoProgress())
    assert {path.name for path in out.iterdir()} == {
        "collection.json", "items.jsonl", "vectors.npy",
    }  # fmt: skip
    np.testing.assert_array_equal(np.load(out / "vectors.npy"), unit_vectors(COUNT))
    lines = (out / "items.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == _expected()
    described = json.loads((out / "collection.json").read_text())
    assert described["index_version"] == manifest.version
    assert (described["model_id"], described["dimension"], described["count"]) == (MODEL, 8, COUNT)


def test_parquet(volume: Volume, tmp_path: Path) -> None:
    """A single file holds all rows, and its metadata describe the collection."""
    out = tmp_path / "out"
    exporting.export(volume, "birds", out, exporting.ParquetWriter(), NoProgress())
    table = pq.read_table(out / "items.parquet")
    rows = table.to_pylist()
    assert [{**row, "attributes": dict(row["attributes"])} for row in rows] == [
        {**item, "vector": pytest.approx(vector.tolist())}
        for item, vector in zip(_expected(), unit_vectors(COUNT), strict=True)
    ]
    assert json.loads(table.schema.metadata[b"simile"])["collection"] == "birds"


def test_without_pyarrow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The import fails as where the library is not installed."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pip install pyarrow"):
        exporting.ParquetWriter()


def test_a_folder_that_exists_is_kept(volume: Volume, tmp_path: Path) -> None:
    """Nothing is overwritten, not even an empty folder."""
    (tmp_path / "out").mkdir()
    with pytest.raises(FileUnusable, match="exists"):
        exporting.export(volume, "birds", tmp_path / "out", exporting.NumpyWriter(), NoProgress())
    with pytest.raises(UnknownCollection):
        exporting.export(volume, "fish", tmp_path / "new", exporting.NumpyWriter(), NoProgress())


def test_an_export_that_fails_leaves_nothing_behind(
    volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is named, and the part that was written is gone."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "open_memmap", full)
    with pytest.raises(FileUnusable, match="No space left"):
        exporting.export(volume, "birds", tmp_path / "out", exporting.NumpyWriter(), NoProgress())
    assert {path.name for path in tmp_path.iterdir()} == {"root"}

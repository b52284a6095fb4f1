"""Evaluation gives scores that can be computed by hand, and a contact sheet."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from services.searcher.admin import evaluation
from services.searcher.admin.contact_sheet import draw_contact_sheet
from services.searcher.admin.evaluation import evaluate, nearest_others
from services.searcher.index.scan import Vectors
from services.shared.errors import BuildFailed
from services.shared.volume.volume import Volume
from tests.support.pictures import plain_jpeg
from tests.support.volume import items, publish_version, unit_vectors


def _two_clusters() -> Vectors:
    """Return 12 vectors: even positions near one axis, odd ones near another."""
    vectors = np.zeros((12, 8), "<f4")
    for number in range(12):
        vectors[number, number % 2] = 1.0
        vectors[number, 2] = 0.01 * number
    unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("<f4")
    return unit


def test_perfect_clusters_score_one(tmp_path: Path) -> None:
    """When every neighbour has the query's label, precision and top-1 are 1."""
    volume = Volume(tmp_path)
    manifest = publish_version(volume, "two", _two_clusters(), items(12))
    result = evaluate(volume, "two", manifest.version, k=5)
    assert (result.overall.precision, result.overall.top1) == (1.0, 1.0)
    assert [(row.label, row.count) for row in result.classes] == [
        ("image even", 6),
        ("image odd", 6),
    ]


def test_wrong_neighbours_lower_the_score(tmp_path: Path) -> None:
    """With k beyond a cluster's size, the share of right labels is 5 of 11."""
    volume = Volume(tmp_path)
    manifest = publish_version(volume, "two", _two_clusters(), items(12))
    result = evaluate(volume, "two", manifest.version, k=11)
    assert result.overall.precision == pytest.approx(5 / 11)
    assert result.overall.top1 == 1.0


def test_too_few_items_can_not_be_judged(tmp_path: Path) -> None:
    """The error gives the number of items."""
    volume = Volume(tmp_path)
    manifest = publish_version(volume, "few", unit_vectors(10), items(10))
    with pytest.raises(BuildFailed, match="too few items, 10"):
        evaluate(volume, "few", manifest.version, k=10)


def test_one_label_can_not_be_judged(tmp_path: Path) -> None:
    """With a single label every answer is right, so a score of 1 would mean nothing."""
    volume = Volume(tmp_path)
    alike = [dataclasses.replace(item, label="") for item in items(20)]
    manifest = publish_version(volume, "plain", unit_vectors(20), alike)
    with pytest.raises(BuildFailed, match="one label"):
        evaluate(volume, "plain", manifest.version)


def test_a_large_collection_is_judged_in_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scores do not depend on the number of rows in memory."""
    volume = Volume(tmp_path)
    manifest = publish_version(volume, "two", unit_vectors(30), items(30))
    whole = evaluate(volume, "two", manifest.version)
    monkeypatch.setattr(evaluation, "_BLOCK_COSINES", 100)
    assert evaluate(volume, "two", manifest.version) == whole


def test_no_item_is_its_own_neighbour() -> None:
    """An item is not among its own neighbours, and these are in order of distance."""
    vectors = unit_vectors(20)
    found = nearest_others(vectors, [3, 7], 19)
    for row, position in zip(found, (3, 7), strict=True):
        assert position not in row
        cosines = vectors[row] @ vectors[position]
        assert (np.diff(cosines) <= 1e-6).all()


def test_the_contact_sheet_shows_queries_and_frames(tmp_path: Path) -> None:
    """Each label has a row; right neighbours have a green frame; a missing image is grey."""
    volume, images = Volume(tmp_path / "root"), tmp_path / "images"
    images.mkdir()
    for number in range(11):
        (images / f"image-{number}.jpg").write_bytes(plain_jpeg((200, 40, 40)))
    manifest = publish_version(volume, "two", _two_clusters(), items(12), images_root=images)
    draw_contact_sheet(volume, "two", manifest.version, tmp_path / "sheet.png", k=5)
    colours = Image.open(tmp_path / "sheet.png").convert("RGB").getcolors(2**24)
    assert colours is not None
    shown = {colour for _, colour in colours}
    assert (46, 139, 87) in shown
    assert (200, 60, 50) not in shown

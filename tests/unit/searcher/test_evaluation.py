"""Evaluation gives scores that can be computed by hand, and a contact sheet."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from services.searcher.admin.contact_sheet import draw_contact_sheet
from services.searcher.admin.evaluation import evaluate, nearest_others
from services.searcher.index.scan import Vectors
from services.shared.errors import BuildFailed
from services.shared.volume.items import Item
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
    """The error says how many images with labels there are."""
    volume = Volume(tmp_path)
    listed = [dataclasses.replace(item, label="") for item in items(20)[10:]]
    manifest = publish_version(volume, "few", unit_vectors(20), [*items(10), *listed])
    with pytest.raises(BuildFailed, match="too few images with labels, 10"):
        evaluate(volume, "few", manifest.version, k=10)


@pytest.mark.parametrize(
    ("label", "message"), [("same", "one label for all images"), ("", "no label of two images")]
)
def test_labels_that_can_not_be_compared(tmp_path: Path, label: str, message: str) -> None:
    """Where every answer is right, or none can be, a score would mean nothing."""
    volume = Volume(tmp_path)
    alike = [
        dataclasses.replace(item, label=label or f"label {item.position}") for item in items(20)
    ]
    manifest = publish_version(volume, "plain", unit_vectors(20), alike)
    with pytest.raises(BuildFailed, match=message):
        evaluate(volume, "plain", manifest.version)


def _on_a_line(labels: Sequence[str], places: Sequence[float]) -> tuple[Vectors, list[Item]]:
    """Return items with these labels, and vectors whose distances are those of the places."""
    vectors = np.zeros((len(places), 8), "<f4")
    vectors[:, 0], vectors[:, 1] = np.cos(places), np.sin(places)
    listed = [
        dataclasses.replace(item, label=label)
        for item, label in zip(items(len(labels)), labels, strict=True)
    ]
    return vectors, listed


def test_scores_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    """P@k, mAP@k, what a label is mistaken for, and both averages, for a known order."""
    # The two nearest of each: cats 0.00 and 0.10 find each other first, then the dog 0.25; cat 0.50
    # finds the dog 0.25, then the cat 0.10; the dog 0.25 finds cats, the dog 1.00 a cat first.
    volume = Volume(tmp_path)
    vectors, listed = _on_a_line(["cat", "cat", "dog", "cat", "dog"], [0.0, 0.1, 0.25, 0.5, 1.0])
    manifest = publish_version(volume, "line", vectors, listed)
    result = evaluate(volume, "line", manifest.version, k=2)
    cat, dog = result.classes
    assert (cat.label, cat.count, dog.label, dog.count) == ("cat", 3, "dog", 2)
    assert cat.precision == pytest.approx((1 / 2 + 1 / 2 + 1 / 2) / 3)
    assert cat.average_precision == pytest.approx((1 / 2 + 1 / 2 + (1 / 2) / 2) / 3)
    assert cat.top1 == pytest.approx(2 / 3)
    assert cat.mistaken_for == "dog"
    assert cat.mistaken_share == pytest.approx(1 / 2)
    assert dog.mistaken_for == "cat"
    assert dog.precision == pytest.approx(1 / 4)
    assert dog.average_precision == pytest.approx((0 + 1 / 2) / 2)
    assert result.macro.precision == pytest.approx((cat.precision + dog.precision) / 2)
    assert result.overall.precision == pytest.approx((3 * cat.precision + 2 * dog.precision) / 5)
    assert result.overall.count == 5


def test_images_without_a_label_are_left_out(tmp_path: Path) -> None:
    """They are no queries, no neighbours and in no average; nor is a label of one image."""
    volume = Volume(tmp_path)
    labels = ["cat", "", "cat", "bird", "dog", "", "dog"]
    vectors, listed = _on_a_line(labels, [0.0, 0.01, 0.1, 0.5, 0.9, 0.91, 1.0])
    manifest = publish_version(volume, "some", vectors, listed)
    result = evaluate(volume, "some", manifest.version, k=1)
    assert (result.unlabelled, result.single) == (2, 1)
    assert [(score.label, score.precision) for score in result.classes] == [
        ("cat", 1.0), ("dog", 1.0),
    ]  # fmt: skip
    assert result.overall.count == 4
    printed = result.to_json()
    assert printed["left_out"] == {"unlabelled": 2, "alone_with_label": 1}
    assert printed["macro_average"] == printed["all_images"]


def test_a_large_collection_is_judged_in_blocks(tmp_path: Path) -> None:
    """The scores do not depend on the number of rows in memory."""
    volume = Volume(tmp_path)
    manifest = publish_version(volume, "two", unit_vectors(30), items(30))
    whole = evaluate(volume, "two", manifest.version)
    assert evaluate(volume, "two", manifest.version, block_cosines=100) == whole


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

"""Near-duplicates form groups, a report and a picture."""

from __future__ import annotations

import dataclasses
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from services.searcher.admin.contact_sheet import draw_groups
from services.searcher.admin.duplicates import Group, find_duplicates
from services.searcher.index.scan import Vectors
from services.searcher.progress import NoProgress
from services.shared.volume.volume import Volume
from tests.support.pictures import plain_jpeg
from tests.support.volume import items, publish_version, unit_vectors


def _chain(count: int, step: float) -> Vectors:
    """Return vectors on a circle, each at that angle from the one before."""
    angles = step * np.arange(count)
    vectors = np.zeros((count, 8), "<f4")
    vectors[:, 0], vectors[:, 1] = np.cos(angles), np.sin(angles)
    return vectors


def _find(
    tmp_path: Path, vectors: Vectors, distance: float, *, block_rows: int = 1024
) -> list[Group]:
    volume = Volume(tmp_path)
    listed = items(len(vectors))
    manifest = publish_version(volume, "birds", vectors, listed, method="exact")
    return find_duplicates(
        volume, "birds", manifest.version, distance, NoProgress(), block_rows=block_rows
    )


@pytest.mark.parametrize("rows", [3, 1024])
def test_items_close_to_one_another_form_a_group(tmp_path: Path, rows: int) -> None:
    """A chain is a single group, though its ends are far apart; its middle is listed first."""
    far = unit_vectors(4, seed=3)
    far[:, :2] = 0
    vectors = np.concatenate([_chain(5, 0.1), far / np.linalg.norm(far, axis=1, keepdims=True)])
    (group,) = _find(tmp_path, vectors.astype("<f4"), 0.21, block_rows=rows)
    assert {item.position for item in group.items} == {0, 1, 2, 3, 4}
    assert group.items[0].position == 2
    assert group.farthest == pytest.approx(0.2, abs=1e-2)
    assert group.same_bytes == 0
    assert group.labels == ["image even", "image odd"]
    assert group.to_json()["items"][0]["path"] == "image-2.jpg"


@pytest.mark.parametrize("rows", [7, 1024])
def test_groups_are_those_of_every_pair(tmp_path: Path, rows: int) -> None:
    """The groups equal those found by following each item's neighbours, for any block size."""
    vectors = unit_vectors(150, seed=9)
    close = vectors @ vectors.T >= 1 - 0.6**2 / 2
    expected, left = set[frozenset[int]](), set(range(150))
    while left:
        group, waiting = set[int](), [left.pop()]
        while waiting:
            group.add(one := waiting.pop())
            waiting += set(np.flatnonzero(close[one]).tolist()) - group
        left -= group
        if len(group) > 1:
            expected.add(frozenset(group))
    found = _find(tmp_path, vectors, 0.6, block_rows=rows)
    assert {frozenset(item.position for item in group.items) for group in found} == expected
    assert len(expected) > 5
    for one_group in found:
        degrees = [int(close[item.position].sum()) for item in one_group.items]
        assert degrees[0] == max(degrees)


def test_a_thousand_copies_take_little_memory(tmp_path: Path) -> None:
    """Four pictures with 1,000 copies each make two million pairs, of which none is stored."""
    vectors = np.repeat(unit_vectors(4, seed=5), 1000, axis=0)
    tracemalloc.start()
    groups = _find(tmp_path, vectors, 0.05)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [len(group.items) for group in groups] == [1000] * 4
    assert peak < 50 * 2**20


def test_items_far_apart_form_no_group(tmp_path: Path) -> None:
    """Without items within the distance, nothing is reported."""
    assert _find(tmp_path, _chain(6, 0.5), 0.3) == []


def test_copies_are_counted_and_several_labels_come_first(tmp_path: Path) -> None:
    """A group with several labels is more suspicious; equal bytes are counted."""
    volume = Volume(tmp_path)
    vectors = np.concatenate([_chain(3, 0.0), -_chain(2, 0.0)])
    listed = [
        dataclasses.replace(item, sha256="same", label="cat" if item.position != 4 else "dog")
        for item in items(5)
    ]
    manifest = publish_version(volume, "birds", vectors, listed, method="exact")
    first, second = find_duplicates(volume, "birds", manifest.version, 0.1, NoProgress())
    assert (first.labels, first.same_bytes) == (["cat", "dog"], 1)
    assert (second.labels, second.same_bytes, len(second.items)) == (["cat"], 2, 3)


def test_the_sheet_shows_a_line_for_each_group(tmp_path: Path) -> None:
    """The sheet shows images side by side, and a grey cell for a missing image."""
    volume, images = Volume(tmp_path / "root"), tmp_path / "images"
    images.mkdir()
    listed = items(4)
    for item in listed[:3]:
        (images / item.path).write_bytes(plain_jpeg((0, 0, 250), (30, 20)))
    vectors = np.concatenate([_chain(2, 0.0), -_chain(2, 0.0)])
    manifest = publish_version(volume, "birds", vectors, listed, images_root=images)
    groups = find_duplicates(volume, "birds", manifest.version, 0.1, NoProgress())
    out = tmp_path / "sheet.png"
    draw_groups(volume, "birds", manifest.version, groups, out)
    with Image.open(out) as sheet:
        assert sheet.height == 2 * (120 + 16 + 8) + 8
        colors = np.asarray(sheet.convert("RGB")).reshape(-1, 3).astype(int)
    blue = np.count_nonzero((colors[:, 2] > 200) & (colors[:, 0] < 100))
    assert blue > 3 * 100 * 100

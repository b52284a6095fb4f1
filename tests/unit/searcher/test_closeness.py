"""A collection derives, from its own distances, the similarity below which nothing is close."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from services.searcher.build.closeness import MIN_SAMPLES, close_above
from services.searcher.build.trial import Trial
from services.searcher.build.tuning import tune
from services.searcher.index.finder import Finder
from services.searcher.index.index import Index
from services.searcher.index.scan import Vectors
from services.searcher.progress import NoProgress
from services.searcher.settings import IndexSettings
from services.shared.contracts import Neighbors, Question
from services.shared.volume.manifest import MANIFEST, Manifest
from services.shared.volume.volume import Volume
from tests.support.volume import items, publish_version, unit_vectors

DIMENSION = 64


def _classes(count: int, each: int, *, spread: float = 1.0, seed: int = 1) -> Vectors:
    """Return unit vectors of `count` classes, `each` of a class, around random centres."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(count, 1, DIMENSION))
    around = centres + spread * rng.normal(size=(count, each, DIMENSION))
    vectors = around.reshape(-1, DIMENSION)
    unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("<f4")
    return unit


def _nearest(collection: Vectors, queries: Vectors) -> Vectors:
    similarities: Vectors = (queries @ collection.T).max(axis=1)
    return similarities


def test_images_of_another_class_have_no_close_match() -> None:
    """Of 12 classes nearly all new images are close; of a class that is missing, nearly none."""
    vectors = _classes(13, 60).reshape(13, 60, DIMENSION)
    collection, new = vectors[:12, :50].reshape(-1, DIMENSION), vectors[:12, 50:]
    threshold = close_above(Trial(collection))
    assert threshold is not None
    assert np.mean(_nearest(collection, new.reshape(-1, DIMENSION)) < threshold) < 0.15
    assert np.mean(_nearest(collection, vectors[12]) < threshold) > 0.8


def test_near_duplicates_do_not_make_all_else_distant() -> None:
    """Where each item has a copy, an image that is merely alike is still close."""
    once = _classes(12, 50)
    rng = np.random.default_rng(2)
    copies = once + 0.001 * rng.normal(size=once.shape)
    collection = np.concatenate([once, copies / np.linalg.norm(copies, axis=1, keepdims=True)])
    threshold = close_above(Trial(collection.astype("<f4")))
    assert threshold is not None
    assert threshold < 0.7
    assert np.percentile(_nearest(once[1:], once[:1]), 50) < 0.99


def test_equal_images_are_at_most_equal() -> None:
    """The product of a unit vector with itself may be rounded to more than 1."""
    for seed in range(20):
        threshold = close_above(Trial(np.repeat(unit_vectors(1, seed=seed), 300, axis=0)))
        assert threshold is not None
        assert threshold <= 1


@pytest.mark.parametrize("count", [2, 5 * MIN_SAMPLES - 1])
def test_few_items_say_nothing(count: int) -> None:
    """A percentile of few distances would be chance."""
    assert close_above(Trial(unit_vectors(count))) is None


def test_the_build_stores_it_and_the_answer_carries_it(tmp_path: Path) -> None:
    """The tuner computes it, and each answer of an index whose manifest has it names it."""
    vectors = _classes(10, 20)
    directory = tmp_path / "building"
    directory.mkdir()
    vectors.tofile(directory / "vectors.f32")
    tuned = tune(directory, len(vectors), DIMENSION, IndexSettings(method="exact"), NoProgress())
    assert tuned.close_above == close_above(Trial(vectors))
    assert _answer(tmp_path, vectors, tuned.close_above).close_above == tuned.close_above


def test_an_index_of_an_earlier_release_has_none(tmp_path: Path) -> None:
    """A manifest without it is read, and its answers carry none."""
    assert _answer(tmp_path, _classes(10, 20), None).close_above is None


def _answer(root: Path, vectors: Vectors, threshold: float | None) -> Neighbors:
    """Return an answer of an index with that threshold; without one its manifest names none."""
    volume = Volume(root)
    manifest = publish_version(volume, "birds", vectors, items(len(vectors)), method="exact")
    file = volume.directory("birds", manifest.version) / MANIFEST
    text = dataclasses.replace(manifest, close_above=threshold).to_json()
    if threshold is None:
        text = text.replace('  "close_above": null,\n', "")
        assert "close_above" not in text
    file.chmod(0o600)
    file.write_text(text)
    assert Manifest.from_json(text).close_above == threshold
    (found,) = Finder(Index.open(volume, "birds", manifest.version)).find(
        [vectors[0]], [Question(collection="birds")]
    )
    assert isinstance(found, Neighbors)
    return found

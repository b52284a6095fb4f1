"""Tests retrieval on real photographs: neighbours are of the query's class."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.searcher.admin.evaluation import evaluate
from services.shared.volume.volume import Volume
from tests.support.photographs import collection_dir
from tests.support.running import start

BUILD_SECONDS = 900


def _build(folder: Path, images: Path, collection: str, *, weights: str = "pretrained") -> Volume:
    environment = {"SIMILE_ROOT": str(folder / "root"), "SIMILE_EMBEDDER_WEIGHTS": weights}
    arguments = ["-m", "services", "index", "build", str(images), "--collection", collection]
    log = folder / f"{collection}.log"
    process = start(f"build {collection}", arguments, log, environment)
    assert process.popen.wait(timeout=BUILD_SECONDS) == 0, log.read_text()[-3000:]
    return Volume(folder / "root")


@pytest.mark.timeout(BUILD_SECONDS)
def test_photographs_find_their_class(tmp_path: Path) -> None:
    """With 45 classes most of the ten nearest share the query's class, by exact leave-one-out."""
    volume = _build(tmp_path, collection_dir(), "photographs")
    version = volume.active("photographs")
    score = evaluate(volume, "photographs", version, k=10).overall
    assert score.count == 4210
    assert score.precision >= 0.80
    assert score.top1 >= 0.88
    assert volume.manifest("photographs", version).recall >= 0.99


@pytest.mark.timeout(BUILD_SECONDS)
def test_random_weights_find_little(tmp_path: Path) -> None:
    """An untrained network scores far lower in the same evaluation, so the score is meaningful."""
    sample = tmp_path / "sample"
    for file in sorted(collection_dir().rglob("*.jpg"))[::6]:
        link = sample / file.parent.name / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.write_bytes(file.read_bytes())
    trained = _build(tmp_path, sample, "trained")
    _build(tmp_path, sample, "untrained", weights="random")
    scores = {
        name: evaluate(trained, name, trained.active(name), k=5).overall.precision
        for name in ("trained", "untrained")
    }
    assert scores["trained"] >= 0.75
    assert scores["untrained"] <= scores["trained"] / 2

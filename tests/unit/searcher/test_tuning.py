"""Tuning measures the search methods, chooses a plan, and reports a true recall."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import psutil
import pytest
import structlog.testing

from services.searcher.build import tuning
from services.searcher.build.trial import Trial
from services.searcher.build.tuning import Tuned, tune
from services.searcher.index.engine import Engine, Found, SearchTimings
from services.searcher.index.methods import annoy_file, registry
from services.searcher.index.methods.method import Workspace
from services.searcher.index.methods.registry import required_files
from services.searcher.index.reduction import Reduction, fit
from services.searcher.index.scan import Vectors
from services.searcher.progress import NoProgress, Progress
from services.searcher.settings import IndexSettings
from services.shared.errors import BuildFailed, IndexCorrupt
from services.shared.volume.manifest import Measurement, MethodName, Plan
from tests.support.volume import unit_vectors


def _clustered(count: int, dimension: int, *, seed: int = 1) -> Vectors:
    """Return unit vectors near a subspace of 20 dimensions, as those of real images are."""
    rng = np.random.default_rng(seed)
    subspace = np.random.default_rng(0).normal(size=(20, dimension))
    vectors = rng.normal(size=(count, 20)) @ subspace
    vectors += 0.05 * rng.normal(size=vectors.shape)
    unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("<f4")
    return unit


def _tune(
    directory: Path, vectors: Vectors, *, in_children: bool = False, **settings: object
) -> Tuned:
    directory.mkdir(exist_ok=True)
    vectors.tofile(directory / "vectors.f32")
    asked = IndexSettings(**settings)  # type: ignore[arg-type]
    count, dimension = vectors.shape
    return tune(directory, count, dimension, asked, NoProgress(), in_children=in_children)


def _workspace(
    directory: Path, vectors: Vectors, progress: Progress | None = None, **settings: object
) -> Workspace:
    """Write the vectors into a version's directory."""
    vectors.tofile(directory / "vectors.f32")
    return Workspace(
        directory=directory,
        count=len(vectors),
        dimension=vectors.shape[1],
        settings=IndexSettings(**settings),  # type: ignore[arg-type]
        progress=progress or NoProgress(),
    )


def _recall(directory: Path, tuned: Tuned, vectors: Vectors, queries: Vectors) -> float:
    """Return the recall for vectors that the index has never seen."""
    engine = Engine.open(directory, tuned.plan, tuned.shards, len(vectors), vectors.shape[1])
    hits = 0
    for query, (positions, _) in zip(queries, engine.search(queries, 10), strict=True):
        exact = np.argsort(-(vectors @ query))[:10]
        hits += len(set(exact.tolist()) & set(positions.tolist()))
    return hits / (10 * len(queries))


METHODS = [*registry.METHODS]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_reaches_the_recall_it_promises(tmp_path: Path, method: MethodName) -> None:
    """For vectors never seen, the recall is the one requested and reported."""
    vectors, queries = _clustered(3000, 96), _clustered(300, 96, seed=2)
    tuned = _tune(tmp_path, vectors, method=method, recall=0.97, in_children=True)
    assert tuned.plan.method == method
    assert tuned.recall >= 0.97
    assert _recall(tmp_path, tuned, vectors, queries) >= 0.96


def test_all_methods_are_tried_and_only_the_chosen_ones_files_stay(tmp_path: Path) -> None:
    """The table has every method that pays at this size; the folder has the files of the plan."""
    tuned = _tune(tmp_path, _clustered(3000, 96))
    assert {one.plan.method for one in tuned.measured} == {*METHODS} - {"reduced-hnsw"}
    assert tuned.plan in {one.plan for one in tuned.measured}
    needed = set(required_files(tuned.plan, tuned.shards)) - {"items.sqlite"}
    assert {path.name for path in tmp_path.iterdir()} == needed
    assert all(one.bytes > 0 and one.queries_per_second > 0 for one in tuned.measured)


def test_the_fastest_that_certainly_reaches_the_target_is_chosen() -> None:
    """A faster plan whose recall may be chance is not chosen, nor is a slower plan."""

    def measured(recall: float, low: float, speed: float) -> Measurement:
        plan = Plan(method="annoy", dimension=8, trees=1, search_k=int(speed))
        return Measurement(
            plan=plan, recall=recall, recall_low=low, queries_per_second=speed,
            milliseconds=1, bytes=1,
        )  # fmt: skip

    table = [measured(1, 1, 100), measured(0.995, 0.991, 900), measured(0.991, 0.985, 2000)]
    chosen = tuning.choose(table, IndexSettings(recall=0.99))
    assert chosen.queries_per_second == 900


def test_a_target_out_of_reach_takes_the_best_and_says_so() -> None:
    """The best plan is taken, with a warning, when none reaches the target."""
    table = [
        Measurement(
            plan=Plan(method="annoy", dimension=8, trees=1, search_k=1),
            recall=recall, recall_low=recall, queries_per_second=1, milliseconds=1, bytes=1,
        )
        for recall in (0.5, 0.7, 0.6)
    ]  # fmt: skip
    with structlog.testing.capture_logs() as logs:
        assert tuning.choose(table, IndexSettings(recall=0.99)).recall == 0.7
    assert [line["action"] for line in logs] == ["recall_target_missed"]


@pytest.mark.parametrize("method", ["annoy", "reduced-annoy"])
def test_shards_together_find_what_one_file_finds(tmp_path: Path, method: MethodName) -> None:
    """Several Annoy files hold all positions in order, and reach the same recall."""
    vectors, queries = _clustered(3500, 96), _clustered(200, 96, seed=2)
    tuned = _tune(tmp_path, vectors, method=method, shard_items=1000, recall=0.97)
    assert [(shard.first, shard.count) for shard in tuned.shards] == [
        (0, 1000), (1000, 1000), (2000, 1000), (3000, 500),
    ]  # fmt: skip
    assert _recall(tmp_path, tuned, vectors, queries) >= 0.96


@pytest.mark.parametrize("count", [1, 2, 11, 60])
def test_a_tiny_collection_is_tuned_too(tmp_path: Path, count: int) -> None:
    """A collection of any size gets a plan, and the plan finds all items."""
    vectors = _clustered(count, 96)
    tuned = _tune(tmp_path, vectors)
    engine = Engine.open(tmp_path, tuned.plan, tuned.shards, *vectors.shape)
    assert sorted(engine.search(vectors[:1], count)[0][0].tolist()) == list(range(count))


def test_vectors_of_few_dimensions_are_not_reduced(tmp_path: Path) -> None:
    """Below 64 dimensions a reduction gains nothing, so a request for it gives exact search."""
    tuned = _tune(tmp_path / "auto", unit_vectors(500))
    assert {one.plan.method for one in tuned.measured} == {"exact", "annoy"}
    asked = _tune(tmp_path / "asked", unit_vectors(500), method="reduced")
    assert asked.plan.method == "exact"


def test_equal_vectors_do_not_confuse_the_trial(tmp_path: Path) -> None:
    """Among items at the same distance any ten are right, so the recall is 1."""
    vectors = np.repeat(_clustered(20, 96), 40, axis=0)
    tuned = _tune(tmp_path, vectors)
    assert all(one.recall == 1.0 for one in tuned.measured if one.plan.method == "exact")
    assert tuned.recall >= 0.99


def test_the_trial_counts_what_is_missing() -> None:
    """An engine that finds half of the right neighbours has a recall of one half."""
    vectors = _clustered(400, 96)
    trial = Trial(vectors)

    class Half(Engine):
        """Finds every other right neighbour, then the farthest ones."""

        def search(
            self, queries: Vectors, k: int, spent: SearchTimings | None = None
        ) -> list[Found]:
            del spent
            found = []
            for query in queries:
                order = trial.indexed[np.argsort(-(vectors[trial.indexed] @ query))]
                chosen = np.concatenate([order[:k:2], order[-5:]])
                found.append((chosen, np.zeros(len(chosen), "f4")))
            return found

    measured = trial.measure(Half(vectors, Plan(method="exact", dimension=96), None, None), 1)
    assert measured.recall == pytest.approx(0.5)
    assert measured.recall_low == pytest.approx(0.5)


def test_a_reduction_keeps_energy_and_direction(tmp_path: Path) -> None:
    """A reduction survives its file; energies ascend to 1; rows have length 1."""
    vectors = _clustered(800, 96)
    reduction, energies = fit(vectors, 96)
    assert (np.diff(energies) >= -1e-6).all()
    assert energies[-1] == pytest.approx(1, abs=1e-3)
    reduction.truncated(20).save(tmp_path / "reduction.npz")
    loaded = Reduction.load(tmp_path / "reduction.npz", (20, 96))
    assert np.linalg.norm(loaded.apply(vectors), axis=1) == pytest.approx(1, abs=1e-5)
    cosines = loaded.apply(vectors[:50]) @ loaded.apply(vectors).T
    assert np.abs(cosines - vectors[:50] @ vectors.T).max() < 0.05


def test_a_reduction_keeps_as_much_as_any_could() -> None:
    """The reduction equals the exact decomposition, with strengths from 1 to a ten thousandth."""
    rng = np.random.default_rng(3)
    axes = np.linalg.qr(rng.standard_normal((300, 300)))[0]
    sample = (rng.standard_normal((900, 300)) * np.geomspace(1, 1e-4, 300) @ axes).astype("<f4")
    reduction, energies = fit(sample, 60)
    squares = np.linalg.svd(sample.astype(np.float64), compute_uv=False) ** 2
    best = np.cumsum(squares)[:60] / squares.sum()
    assert energies == pytest.approx(best, abs=1e-5)
    kept = np.square(sample @ reduction.components.T, dtype=np.float64).sum() / squares.sum()
    assert kept == pytest.approx(best[-1], abs=1e-5)


def test_a_reduction_of_few_directions_is_sound() -> None:
    """Where vectors repeat, more dimensions than directions are still orthonormal."""
    sample = np.repeat(unit_vectors(5, dimension=96), 40, axis=0)
    reduction, energies = fit(sample, 32)
    gram = reduction.components @ reduction.components.T
    assert gram == pytest.approx(np.eye(32), abs=1e-5)
    assert energies[4:] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("content", [b"", b"rubbish", None], ids=str)
def test_a_file_without_a_reduction_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """Another file, or a reduction of another shape, is a named error."""
    path = tmp_path / "reduction.npz"
    if content is None:
        fit(_clustered(300, 96), 10)[0].save(path)
    else:
        path.write_bytes(content)
    with pytest.raises(IndexCorrupt, match=r"reduction\.npz"):
        Reduction.load(path, (20, 96))


def test_a_child_that_can_not_write_fails_by_name(tmp_path: Path) -> None:
    """The Annoy file is written by a child process, whose death becomes a BuildFailed."""
    plan = Plan(method="annoy", dimension=8, trees=5)
    work = _workspace(tmp_path, unit_vectors(50))
    (tmp_path / "annoy-0.ann").mkdir()
    with pytest.raises(BuildFailed, match="could not be written"):
        annoy_file.write_shards(work, plan)
    (tmp_path / "annoy-0.ann").rmdir()
    (tmp_path / "vectors.f32").unlink()
    with pytest.raises(BuildFailed, match="could not be written"):
        annoy_file.write_shards(work, plan)


def test_an_interrupted_build_ends_its_child(tmp_path: Path) -> None:
    """The interruption does not wait for the trees, and leaves no child process."""

    class Interrupted(NoProgress):
        """Ends the work at the first report of progress."""

        def advance(self, count: int = 1, *, failed: bool = False) -> None:
            del count, failed
            message = "interrupted"
            raise BuildFailed(message)

    work = _workspace(tmp_path, unit_vectors(60_000, dimension=64), Interrupted())
    plan = Plan(method="annoy", dimension=64, trees=1000)
    others = set(psutil.Process().children())
    with pytest.raises(BuildFailed, match="interrupted"):
        annoy_file.write_shards(work, plan)
    assert set(psutil.Process().children()) <= others


def test_a_full_volume_fails_a_build_by_name(tmp_path: Path) -> None:
    """Annoy's bus error on a full volume ends the child, and becomes a BuildFailed."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("a small volume of its own can only be mounted by root")
    try:
        work = _workspace(tmp_path, unit_vectors(20_000))
        plan = Plan(method="annoy", dimension=8, trees=50)
        with pytest.raises(BuildFailed, match="is the volume full"):
            annoy_file.write_shards(work, plan)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)

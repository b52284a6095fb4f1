"""The graph is built within its time, shared by threads and processes, refused when damaged."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import structlog.testing

from services.searcher.build.tuning import Tuned, tune
from services.searcher.index.engine import Engine
from services.searcher.index.methods.hnsw import Hnsw
from services.searcher.index.methods.method import Method, Workspace
from services.searcher.index.methods.registry import METHODS
from services.searcher.index.reduction import Reduction, fit
from services.searcher.index.scan import Vectors
from services.searcher.progress import NoProgress, Progress
from services.searcher.settings import IndexSettings
from services.shared.errors import BuildFailed, IndexCorrupt
from services.shared.volume.manifest import REDUCTION, VECTORS, MethodName, Plan
from tests.support.volume import unit_vectors

COUNT, DIMENSION, REDUCED = 1200, 80, 64
VECTORS_DRAWN = unit_vectors(COUNT, dimension=DIMENSION)
PLAN = Plan(method="reduced-hnsw", dimension=REDUCED, search_k=60, rerank=60)
METHODS_TRIED: dict[MethodName, Method] = {
    "reduced-hnsw": Hnsw(min_items=1000),
    "exact": METHODS["exact"],
}


def _workspace(directory: Path, progress: Progress | None = None) -> Workspace:
    """Write the vectors and their reduction into a version's directory."""
    VECTORS_DRAWN.tofile(directory / VECTORS)
    fit(VECTORS_DRAWN, REDUCED)[0].save(directory / REDUCTION)
    return Workspace(
        directory=directory,
        count=COUNT,
        dimension=DIMENSION,
        settings=IndexSettings(),
        progress=progress or NoProgress(),
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a version with a graph of all items."""
    directory = tmp_path_factory.mktemp("version")
    Hnsw().build(_workspace(directory), PLAN)
    return directory


def _reduced(directory: Path) -> Vectors:
    reduction = Reduction.load(directory / REDUCTION, (REDUCED, DIMENSION))
    return reduction.apply(VECTORS_DRAWN)


def _tune(directory: Path, vectors: Vectors = VECTORS_DRAWN, **settings: object) -> Tuned:
    vectors.tofile(directory / VECTORS)
    asked = IndexSettings(recall=0.9, **settings)  # type: ignore[arg-type]
    return tune(directory, len(vectors), DIMENSION, asked, NoProgress(), methods=METHODS_TRIED)


def test_threads_search_one_graph_with_different_efforts(built: Path) -> None:
    """Eight threads with different numbers of neighbours get the same results as alone."""
    proposer, queries = Hnsw().open(built, PLAN, (), COUNT), _reduced(built)[:32]

    def search(number: int) -> list[list[int]]:
        k_blocks = 1 + number % 8
        return [found.tolist() for found in proposer.propose(queries, k_blocks, 10 * k_blocks)]

    alone = [search(number) for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(search, range(32)))
    assert together == alone * 4


def test_a_graph_is_mapped_read_only_and_copied_nowhere(built: Path) -> None:
    """The pages belong to the file, so that processes share them."""
    proposer = Hnsw().open(built, PLAN, (), COUNT)
    proposer.propose(_reduced(built), 1, 10)
    mappings = Path("/proc/self/smaps").read_text().split("VmFlags:")
    (mapping,) = (one for one in mappings if str(built / "graph.usearch") in one)
    sizes = dict(re.findall(r"(\w+): +(\d+) kB", mapping))
    assert " r--s " in mapping
    assert int(sizes["Rss"]) > 0
    assert int(sizes["Anonymous"]) == 0


def test_the_items_of_the_trial_are_in_the_graph(tmp_path: Path) -> None:
    """Vectors held out to measure are added when the plan is chosen, and each finds itself."""
    tuned = _tune(tmp_path, method="reduced-hnsw")
    assert tuned.plan.method == "reduced-hnsw"
    engine = Engine.open(tmp_path, tuned.plan, (), COUNT, DIMENSION)
    found = [int(positions[0]) for positions, _ in engine.search(VECTORS_DRAWN, 1)]
    assert np.mean(np.array(found) == np.arange(COUNT)) >= 0.99
    assert {path.name for path in tmp_path.iterdir()} == {
        "vectors.f32", "reduction.npz", "graph.usearch",
    }  # fmt: skip


@pytest.mark.parametrize(("count", "method", "tried"), [
    (COUNT, "auto", {"exact", "reduced-hnsw"}), (999, "auto", {"exact"}),
    (999, "reduced-hnsw", {"reduced-hnsw"}),
])  # fmt: skip
def test_a_graph_is_tried_where_there_are_enough_items_or_by_name(
    tmp_path: Path, count: int, method: str, tried: set[str]
) -> None:
    """A graph of few items is not worth building, unless requested."""
    tuned = _tune(tmp_path, VECTORS_DRAWN[:count], method=method)
    assert {one.plan.method for one in tuned.measured} == tried


def test_a_graph_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    """Without time for the graph, the build logs this and continues with the other methods."""
    with structlog.testing.capture_logs() as logs:
        tuned = _tune(tmp_path, graph_seconds=0)
    assert "reduced-hnsw" not in {one.plan.method for one in tuned.measured}
    assert "graph_given_up" in [line["action"] for line in logs]
    assert not (tmp_path / "graph.usearch").exists()


def test_an_interrupted_build_leaves_the_graph(tmp_path: Path) -> None:
    """Progress between blocks of rows may end the work."""
    counted: list[int] = []

    class Interrupted(NoProgress):
        """Ends the work after the second block."""

        def advance(self, count: int = 1, *, failed: bool = False) -> None:
            del failed
            counted.append(count)
            if len(counted) == 2:
                message = "interrupted"
                raise BuildFailed(message)

    with pytest.raises(BuildFailed, match="interrupted"):
        Hnsw().build(_workspace(tmp_path, Interrupted()), PLAN)
    assert 0 < sum(counted) < COUNT
    assert not (tmp_path / "graph.usearch").exists()


def test_a_graph_that_can_not_be_written_fails_the_build_by_name(tmp_path: Path) -> None:
    """The library's error becomes a BuildFailed that names the file."""
    (tmp_path / "graph.usearch" / "x").mkdir(parents=True)
    with pytest.raises(BuildFailed, match=r"graph\.usearch could not be written"):
        Hnsw().build(_workspace(tmp_path), PLAN)


@pytest.mark.parametrize("damage", ["empty", "other", "head", "half", "short"])
def test_a_file_that_is_no_graph_is_refused(built: Path, tmp_path: Path, damage: str) -> None:
    """A damaged file is a named error, even if its hash fits."""
    raw = (built / "graph.usearch").read_bytes()
    damaged = {
        "empty": b"", "other": b"other" * 1000, "head": raw[:64], "half": raw[: len(raw) // 2],
        "short": raw[:-1],
    }  # fmt: skip
    (tmp_path / "graph.usearch").write_bytes(damaged[damage])
    with pytest.raises(IndexCorrupt, match=r"graph\.usearch"):
        Hnsw().open(tmp_path, PLAN, (), COUNT)


@pytest.mark.parametrize(("dimension", "count"), [(REDUCED, COUNT - 1), (REDUCED // 2, COUNT)])
def test_a_graph_of_another_shape_is_refused(built: Path, dimension: int, count: int) -> None:
    """Fewer items or dimensions than in the manifest are a named error."""
    with pytest.raises(IndexCorrupt, match="does not hold"):
        Hnsw().open(built, replace(PLAN, dimension=dimension), (), count)

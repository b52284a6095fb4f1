"""Adapts the compared engines: each builds into a folder, and is opened from it.

An effort is the number that trades speed for recall; an engine without such a number has effort 0.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import faiss
import hnswlib
import numpy as np
from annoy import AnnoyIndex
from numpy.typing import NDArray

from services.searcher.build.tuning import tune
from services.searcher.index.engine import Engine as Simile
from services.searcher.index.scan import Positions, Vectors, mapped
from services.searcher.progress import NoProgress
from services.searcher.settings import IndexSettings
from services.shared.volume.manifest import VECTORS, Plan, Shard

K: Final = 10
BATCH_QUERIES: Final = 32

Search = Callable[[Vectors], Sequence[Positions]]
"""Returns the positions of the K nearest of each query (n, dimension)."""

_FAISS: Any = faiss
"""faiss, untyped: its stubs are incomplete."""

_ANNOY_TREES: Final = 10
_HNSW_LINKS: Final = 16
_HNSW_CONSTRUCTION: Final = 200
_EFS: Final = (10, 20, 40, 80, 160, 320, 640, 1280, 2560)
_SEARCH_K_TIMES: Final = (1, 4, 16, 64, 256, 1024, 4096)


@dataclass(frozen=True, slots=True)
class Opened:
    """An index ready to be searched.

    efforts: the possible values of `search`, ascending; the first is the library's default.
    bytes: files or memory that a search reads. note: the chosen parameters, for people.
    """

    search: Callable[[int], Search]
    efforts: Sequence[int]
    bytes: int
    note: str = ""


class Adapter(Protocol):
    """Adapts an engine."""

    @property
    def title(self) -> str:
        """Return its name in tables."""

    def build(self, vectors: Vectors, folder: Path) -> None:
        """Write its files into an empty folder; `folder`/vectors.f32 exists already."""

    def open(self, vectors: Vectors, folder: Path) -> Opened:
        """Open the built index."""


class PlainAnnoy:
    """Annoy as in its README, on the full vectors: 10 trees, and the default search_k."""

    title = "plain Annoy"

    def build(self, vectors: Vectors, folder: Path) -> None:
        """Build trees on all cores, Annoy's default."""
        index = AnnoyIndex(vectors.shape[1], "angular")
        index.set_seed(1)
        for position, vector in enumerate(vectors):
            index.add_item(position, vector)
        index.build(_ANNOY_TREES)
        index.save(str(folder / "plain.ann"))

    def open(self, vectors: Vectors, folder: Path) -> Opened:
        """Open it; efforts are search_k, by default K x trees."""
        index = AnnoyIndex(vectors.shape[1], "angular")
        index.load(str(folder / "plain.ann"))
        default = K * _ANNOY_TREES
        most = 2 * len(vectors) * _ANNOY_TREES

        def at(effort: int) -> Search:
            search_k = -1 if effort == default else effort
            return lambda queries: [
                np.array(index.get_nns_by_vector(query, K, search_k)) for query in queries
            ]

        efforts = [default * times for times in _SEARCH_K_TIMES if default * times <= most]
        return Opened(at, efforts, (folder / "plain.ann").stat().st_size)


class Hnswlib:
    """hnswlib on the full vectors by inner product (they are of unit length)."""

    title = "hnswlib"

    def build(self, vectors: Vectors, folder: Path) -> None:
        """On all cores, its default."""
        index = self._index(vectors)
        index.init_index(
            len(vectors), M=_HNSW_LINKS, ef_construction=_HNSW_CONSTRUCTION, random_seed=1
        )
        _in_blocks(vectors, index.add_items)
        index.save_index(str(folder / "hnswlib.bin"))

    def open(self, vectors: Vectors, folder: Path) -> Opened:
        """Open it; efforts are ef."""
        index = self._index(vectors)
        index.load_index(str(folder / "hnswlib.bin"))
        index.set_num_threads(1)

        def at(effort: int) -> Search:
            def search(queries: Vectors) -> Sequence[Positions]:
                index.set_ef(effort)
                positions, _ = index.knn_query(queries, K, num_threads=1)
                return list(positions.astype(np.int64))

            return search

        return Opened(at, _EFS, (folder / "hnswlib.bin").stat().st_size)

    def _index(self, vectors: Vectors) -> Any:
        return hnswlib.Index(space="ip", dim=vectors.shape[1])


class FaissHnsw:
    """faiss' IndexHNSWFlat by inner product."""

    title = "faiss HNSW"

    def build(self, vectors: Vectors, folder: Path) -> None:
        """On all cores, its default."""
        faiss.omp_set_num_threads(os.cpu_count() or 1)
        index = faiss.IndexHNSWFlat(vectors.shape[1], _HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _HNSW_CONSTRUCTION
        _in_blocks(vectors, index.add)
        faiss.write_index(index, str(folder / "faiss.bin"))

    def open(self, vectors: Vectors, folder: Path) -> Opened:
        """Open it; efforts are efSearch."""
        del vectors
        faiss.omp_set_num_threads(1)
        index = faiss.read_index(str(folder / "faiss.bin"))

        def at(effort: int) -> Search:
            asked = _FAISS.SearchParametersHNSW(efSearch=effort)
            return lambda queries: list(index.search(queries, K, params=asked)[1])

        return Opened(at, _EFS, (folder / "faiss.bin").stat().st_size)


class Exact:
    """Exact search: a matrix product of all waiting queries with all vectors."""

    title = "exact (numpy)"

    def build(self, vectors: Vectors, folder: Path) -> None:
        """Build nothing."""

    def open(self, vectors: Vectors, folder: Path) -> Opened:
        """Map the vectors, as Simile does."""
        del folder

        def search(queries: Vectors) -> Sequence[Positions]:
            dots = queries @ vectors.T
            best = np.argpartition(dots, -K, axis=1)[:, -K:]
            order = np.argsort(-np.take_along_axis(dots, best, axis=1), axis=1)
            return list(np.take_along_axis(best, order, axis=1))

        return Opened(lambda _: search, (0,), vectors.nbytes)


class OurEngine:
    """Simile's own engine, as `simile index build --recall` builds it."""

    def __init__(self, recall: float) -> None:
        """recall: the requested recall of the build."""
        self._recall = recall
        self.title = f"Simile, {recall:g} asked"

    def build(self, vectors: Vectors, folder: Path) -> None:
        """Try all plans, as every build does."""
        settings = IndexSettings(recall=self._recall)
        count, dimension = vectors.shape
        tuned = tune(folder, count, dimension, settings, NoProgress())
        (folder / "tuned.json").write_text(json.dumps(asdict(tuned)))

    def open(self, vectors: Vectors, folder: Path) -> Opened:
        """Open it; the chosen plan is the only effort."""
        tuned = json.loads((folder / "tuned.json").read_text())
        plan = Plan(**tuned["plan"])
        shards = tuple(Shard(**shard) for shard in tuned["shards"])
        engine = Simile.open(folder, plan, shards, *vectors.shape)

        def search(queries: Vectors) -> Sequence[Positions]:
            return [positions for positions, _ in engine.search(queries, K)]

        files = sum(
            file.stat().st_size
            for file in folder.iterdir()
            if file.name not in {VECTORS, "tuned.json"}
        )
        return Opened(lambda _: search, (0,), vectors.nbytes + files, _described(plan))


ENGINES: Final[dict[str, Adapter]] = {
    "simile-0.99": OurEngine(0.99),
    "simile-0.999": OurEngine(0.999),
    "annoy": PlainAnnoy(),
    "hnswlib": Hnswlib(),
    "faiss": FaissHnsw(),
    "exact": Exact(),
}

_ONE_GRAPH: Final = "a graph of this size takes many minutes, and hnswlib's stands for both"

SKIPPED: Final = {
    ("100k-easy", "faiss"): _ONE_GRAPH,
    ("100k-hard", "faiss"): _ONE_GRAPH,
    ("100k-hard", "hnswlib"): "its build takes as long as on the easy set, which shows it",
    ("1m-256", "faiss"): _ONE_GRAPH,
}
"""(set, engine): the reason why it is left out."""


def link(matrix: Path, count: int, dimension: int, folder: Path) -> Vectors:
    """Map the first `count` vectors as `folder`/vectors.f32, without a copy."""
    folder.mkdir(parents=True)
    (folder / VECTORS).hardlink_to(matrix)
    return mapped(folder / VECTORS, count, dimension)


def _described(plan: Plan) -> str:
    parts: list[str] = [plan.method]
    if plan.method.startswith("reduced"):
        parts.append(f"{plan.dimension} dimensions")
    if plan.trees:
        parts.append(f"{plan.trees} trees")
    if plan.search_k:
        parts.append(f"search_k {plan.search_k:,}")
    if plan.lists:
        parts.append(f"{plan.probes} of {plan.lists:,} lists")
    if plan.rerank:
        parts.append(f"re-ranks {plan.rerank}")
    return ", ".join(parts)


def _in_blocks(vectors: Vectors, add: Callable[[NDArray[np.float32]], object]) -> None:
    """Add mapped vectors so that only the library's copy is in memory."""
    for start in range(0, len(vectors), BATCH_QUERIES * 256):
        add(np.ascontiguousarray(vectors[start : start + BATCH_QUERIES * 256]))

"""Small index versions with vectors made up for tests, written by the product's own code."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from services.searcher import annoy_file, inverted_lists, publisher
from services.searcher.index import stored_file
from services.searcher.progress import NoProgress
from services.searcher.reduction import Reduction
from services.searcher.scan import Vectors
from services.shared.collection import Volume
from services.shared.items import ITEMS, Item, write_items
from services.shared.manifest import (
    REDUCED,
    REDUCTION,
    VECTORS,
    Manifest,
    Measurement,
    Method,
    Plan,
    Shard,
    required_files,
)

MODEL = "fake@0123456789ab/pixels/8"
DIMENSION = 8
REDUCED_DIMENSION = 6


def unit_vectors(count: int, *, seed: int = 1, dimension: int = DIMENSION) -> Vectors:
    """Random vectors of length 1."""
    drawn = np.random.default_rng(seed).normal(size=(count, dimension))
    vectors: Vectors = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype("<f4")
    return vectors


def items(count: int, *, prefix: str = "image") -> list[Item]:
    """Items `<prefix>-0` ... with two labels in turn."""
    return [
        Item(
            position=number,
            item_id=hashlib.blake2b(f"{prefix}-{number}".encode(), digest_size=8).hexdigest(),
            path=f"{prefix}-{number}.jpg",
            label=f"{prefix} {'even' if number % 2 == 0 else 'odd'}",
            attributes={"number": str(number)},
            width=30,
            height=20,
            sha256=hashlib.sha256(f"{prefix}-{number}".encode()).hexdigest(),
        )
        for number in range(count)
    ]


def publish_version(  # noqa: PLR0913 (the parts of a version, each with a default)
    volume: Volume,
    collection: str,
    vectors: Vectors,
    listed: Sequence[Item],
    *,
    model_id: str = MODEL,
    images_root: Path = Path("/nowhere"),
    number: int = 0,
    method: Method = "annoy",
    shard_items: int = 10**6,
    activate: bool = True,
) -> Manifest:
    """Write, publish and activate a version; `number` tells versions of one second apart."""
    version = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + f"-{number:08x}"
    staging = volume.home(collection) / "building" / version
    staging.mkdir(parents=True)
    vectors.tofile(staging / VECTORS)
    write_items(staging / ITEMS, listed)
    plan, shards = _write_search_files(staging, vectors, method, shard_items)
    manifest = Manifest(
        collection=collection,
        version=version,
        model_id=model_id,
        dimension=vectors.shape[1],
        count=len(listed),
        plan=plan,
        recall=1.0,
        recall_target=0.99,
        energy=1.0,
        measured=(
            Measurement(
                plan=plan, recall=1.0, recall_low=1.0, queries_per_second=1000.0,
                milliseconds=1.0, bytes=vectors.nbytes,
            ),
        ),
        shards=shards,
        images_root=str(images_root),
        created_unix_ms=1,
        canaries=(0, len(listed) - 1),
        files={name: stored_file(staging / name) for name in required_files(plan, shards)},
    )  # fmt: skip
    if activate:
        publisher.publish(volume, staging, manifest)
    else:
        volume.publish(staging, manifest)
    return manifest


def _write_search_files(
    staging: Path, vectors: Vectors, method: Method, shard_items: int
) -> tuple[Plan, tuple[Shard, ...]]:
    count, dimension = vectors.shape
    matrix = VECTORS
    if method.startswith("reduced"):
        dimension, matrix = min(REDUCED_DIMENSION, dimension), REDUCED
        _, components = np.linalg.eigh(vectors.T @ vectors)
        reduction = Reduction(np.ascontiguousarray(components.T[::-1][:dimension], "<f4"))
        reduction.save(staging / REDUCTION)
        reduction.apply(vectors).tofile(staging / REDUCED)
    if method == "reduced-ivf":
        lists = min(count, 10)
        rows, reduced = np.arange(count), np.fromfile(staging / REDUCED, "<f4").reshape(count, -1)
        centroids = inverted_lists.train(reduced, rows, lists, NoProgress())
        inverted_lists.write(staging, reduced, rows, centroids, NoProgress())
        (staging / REDUCED).unlink()
        probes = min(lists, 8)
        return Plan(method=method, dimension=dimension, lists=lists, probes=probes, rerank=200), ()
    if method in {"exact", "reduced"}:
        return Plan(method=method, dimension=dimension, rerank=200), ()
    shards = tuple(
        Shard(f"annoy-{number}.ann", first, min(shard_items, count - first))
        for number, first in enumerate(range(0, count, shard_items))
    )
    for shard in shards:
        # In this process: a child for each would take most of the tests' time.
        annoy_file.main(
            [str(staging / matrix), str(staging / shard.file),
             *(str(number) for number in (dimension, shard.first, shard.count, 10))]
        )  # fmt: skip
    (staging / REDUCED).unlink(missing_ok=True)
    return Plan(method=method, dimension=dimension, trees=10, search_k=5000, rerank=200), shards

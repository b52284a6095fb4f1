"""Writes small index versions of random vectors, by the product's own code."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from services.searcher.admin import versions
from services.searcher.index.index import stored_file
from services.searcher.index.methods.method import Workspace
from services.searcher.index.methods.registry import METHODS, required_files
from services.searcher.index.reduction import Reduction
from services.searcher.index.scan import Vectors
from services.searcher.progress import NoProgress
from services.searcher.settings import IndexSettings
from services.shared.volume.items import ITEMS, Item, write_items
from services.shared.volume.manifest import (
    REDUCED,
    REDUCTION,
    VECTORS,
    Manifest,
    Measurement,
    MethodName,
    Plan,
    Shard,
    reduces,
)
from services.shared.volume.volume import Volume

MODEL = "fake@0123456789ab/pixels/8"
DIMENSION = 8
REDUCED_DIMENSION = 6


def unit_vectors(count: int, *, seed: int = 1, dimension: int = DIMENSION) -> Vectors:
    """Return random vectors of length 1."""
    drawn = np.random.default_rng(seed).normal(size=(count, dimension))
    vectors: Vectors = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype("<f4")
    return vectors


def items(count: int, *, prefix: str = "image") -> list[Item]:
    """Return items `<prefix>-0`, `<prefix>-1`, ... with two alternating labels."""
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
    method: MethodName = "annoy",
    shard_items: int = 10**6,
    activate: bool = True,
) -> Manifest:
    """Write, publish and activate a version; `number` distinguishes versions of the same second."""
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
        versions.publish(volume, staging, manifest)
    else:
        volume.publish(staging, manifest)
    return manifest


def _write_search_files(
    staging: Path, vectors: Vectors, name: MethodName, shard_items: int
) -> tuple[Plan, tuple[Shard, ...]]:
    """Write the files of a plan with generous effort, so that nearly all neighbours are found."""
    count, dimension = vectors.shape
    if reduces(name):
        dimension = min(REDUCED_DIMENSION, dimension)
        _, components = np.linalg.eigh(vectors.T @ vectors)
        reduction = Reduction(np.ascontiguousarray(components.T[::-1][:dimension], "<f4"))
        reduction.save(staging / REDUCTION)
        reduction.apply(vectors).tofile(staging / REDUCED)
    # A child process for each Annoy file would take most of the tests' time.
    settings = IndexSettings.model_construct(trees=10, shard_items=shard_items)
    work = Workspace(
        directory=staging,
        count=count,
        dimension=vectors.shape[1],
        settings=settings,
        progress=NoProgress(),
        in_children=False,
    )  # fmt: skip
    base = Plan(method=name, dimension=dimension, rerank=10)
    first = METHODS[name].first_plan(base, settings, count)
    plan = replace(
        first, search_k=5000 if first.search_k else 0, probes=-(-3 * first.lists // 4), rerank=200
    )
    shards = METHODS[name].build(work, plan)
    for path in staging.iterdir():
        if path.name not in required_files(plan, shards):
            path.unlink()
    return plan, shards

"""Small index versions with vectors made up for tests, written by the product's own code."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from services.searcher import publisher
from services.searcher.index import Vectors, build_annoy, measure, stored_file
from services.shared import collection as files
from services.shared.collection import Item, Manifest, Volume, write_items

MODEL = "fake@0123456789ab/pixels/8"
DIMENSION = 8
TREES = 10


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


def publish_version(  # the parts of a version, each with a default
    volume: Volume,
    collection: str,
    vectors: Vectors,
    listed: Sequence[Item],
    *,
    model_id: str = MODEL,
    images_root: Path = Path("/nowhere"),
    number: int = 0,
) -> Manifest:
    """Write, publish and activate a version; `number` tells versions of one second apart."""
    version = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + f"-{number:08x}"
    staging = volume.home(collection) / "building" / version
    staging.mkdir(parents=True)
    vectors.tofile(staging / files.VECTORS)
    write_items(staging / files.ITEMS, listed)
    build_annoy(vectors, TREES, staging / files.INDEX)
    search_k, recall = measure(vectors, staging / files.INDEX, trees=TREES, target=0.99)
    manifest = Manifest(
        collection=collection,
        version=version,
        model_id=model_id,
        dimension=vectors.shape[1],
        count=len(listed),
        trees=TREES,
        search_k=search_k,
        recall=recall,
        images_root=str(images_root),
        created_unix_ms=1,
        canaries=(0, len(listed) - 1),
        files={name: stored_file(staging / name) for name in files.FILES},
    )
    publisher.publish(volume, staging, manifest)
    return manifest

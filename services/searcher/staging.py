"""The files of a new index version, written beside the published ones, and where vectors are."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from services.searcher import publisher
from services.searcher.index import Vectors, build_annoy, measure, stored_file
from services.searcher.journal import Journal
from services.searcher.settings import IndexSettings
from services.shared import collection as files
from services.shared.collection import Item, ItemCatalog, Manifest, Volume
from services.shared.errors import BuildFailed

_CANARIES: Final = 5


class Previous:
    """The active version, whose vectors can be used again."""

    def __init__(self, volume: Volume, collection: str, version: str) -> None:
        """Raises IndexCorrupt: damaged vectors must not live on in the next version."""
        publisher.verify(volume, collection, version)
        self.manifest = volume.manifest(collection, version)
        self._directory = volume.directory(collection, version)
        with contextlib.closing(ItemCatalog(self._directory / files.ITEMS)) as catalog:
            self._items = catalog.all()
        self.positions = {item.sha256: item.position for item in self._items}

    def vector(self, sha256: str) -> bytes | None:
        """The stored vector of that content."""
        position = self.positions.get(sha256)
        if position is None:
            return None
        return files.read_vector(self._directory, position, self.manifest.dimension)

    def holds(self, items: Sequence[Item], folder: Path, settings: IndexSettings) -> bool:
        """Whether a new version would be the same, or no better."""
        manifest = self.manifest
        same_search = manifest.trees == settings.trees and manifest.recall >= settings.recall
        same_place = manifest.images_root == str(folder)
        return same_place and same_search and self._items == list(items)


class Vectorbook:
    """Where the vector of any content is: in the journal, or in the version before."""

    def __init__(self, journal: Journal, model_id: str, previous: Previous | None) -> None:
        self._journal = journal
        self._previous = previous
        self.model_id = model_id

    def find(self, sha256: str) -> bytes | None:
        """The vector of that content, if there is one."""
        vector = self._journal.vector(sha256, self.model_id)
        if vector is None and self._previous is not None:
            return self._previous.vector(sha256)
        return vector


def write_version(
    building: Path,
    collection: str,
    folder: Path,
    items: Sequence[Item],
    vectorbook: Vectorbook,
    settings: IndexSettings,
) -> tuple[Path, Manifest]:
    """Write every file of a new version into a directory of `building`; which, and its manifest.

    Blocking: use a thread. What an interrupted build left there is swept.
    """
    for leftover in building.glob("*/"):
        shutil.rmtree(leftover)
    version = _new_version()
    staging = building / version
    staging.mkdir()
    vectors = _write_vectors(staging / files.VECTORS, items, vectorbook)
    files.write_items(staging / files.ITEMS, items)
    build_annoy(vectors, settings.trees, staging / files.INDEX)
    search_k, recall = measure(
        vectors, staging / files.INDEX, trees=settings.trees, target=settings.recall
    )
    manifest = Manifest(
        collection=collection,
        version=version,
        model_id=vectorbook.model_id,
        dimension=vectors.shape[1],
        count=len(items),
        trees=settings.trees,
        search_k=search_k,
        recall=recall,
        images_root=str(folder),
        created_unix_ms=time.time_ns() // 1_000_000,
        canaries=_canaries(len(items)),
        files={name: stored_file(staging / name) for name in files.FILES},
    )
    return staging, manifest


def _write_vectors(path: Path, items: Sequence[Item], vectorbook: Vectorbook) -> Vectors:
    with path.open("wb") as out:
        for item in items:
            vector = vectorbook.find(item.sha256)
            if vector is None:
                message = f"the vector of {item.path} is lost; run the build again"
                raise BuildFailed(message)
            out.write(vector)
    dimension = path.stat().st_size // 4 // len(items)
    return np.memmap(path, dtype="<f4", mode="r", shape=(len(items), dimension))


def _new_version() -> str:
    """`<utc>-<8 hex digits>`: two builds of one second differ, even when they hold the same."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + f"-{secrets.token_hex(4)}"


def _canaries(count: int) -> tuple[int, ...]:
    return tuple(sorted({number * count // _CANARIES for number in range(_CANARIES)}))

"""Writes the files of a new index version beside the published versions, row by row."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Final

from services.searcher.admin import versions
from services.searcher.build.journal import Journal
from services.searcher.build.tuning import tune
from services.searcher.index.index import stored_file
from services.searcher.index.methods.registry import required_files
from services.searcher.progress import Progress
from services.searcher.settings import IndexSettings
from services.shared.errors import BuildFailed
from services.shared.volume.items import ITEMS, Item, ItemCatalog, write_items
from services.shared.volume.manifest import VECTORS, Manifest
from services.shared.volume.volume import Volume, new_version

_CANARIES: Final = 5
_FLOAT32_BYTES: Final = 4


class PreviousVersion:
    """The version before, whose vectors are used again; held while this object lives."""

    def __init__(self, volume: Volume, collection: str, version: str) -> None:
        """Open the version. Raises IndexCorrupt: damaged vectors must not be used again."""
        self._lease = volume.hold(collection, version)
        versions.verify(volume, collection, version)
        self.manifest = volume.manifest(collection, version)
        self.directory = volume.directory(collection, version)
        self._items = ItemCatalog(self.directory / ITEMS)
        self._vectors = os.open(self.directory / VECTORS, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "_vectors"):
            os.close(self._vectors)

    def holds_content(self, sha256: str) -> bool:
        """Return whether the version has a vector of that content."""
        return self._items.position_of(sha256) is not None

    def vector(self, sha256: str) -> bytes | None:
        """Return the stored vector of that content, or None."""
        position = self._items.position_of(sha256)
        if position is None:
            return None
        size = _FLOAT32_BYTES * self.manifest.dimension
        return os.pread(self._vectors, size, position * size)

    def is_current(self, journal: Journal, folder: Path, settings: IndexSettings) -> bool:
        """Return whether a new version of the listed images would be equal, or no better."""
        manifest = self.manifest
        searched_alike = (
            settings.method in {"auto", manifest.plan.method}
            and manifest.recall_target == settings.recall
            and manifest.plan.trees in {0, settings.trees}
        )
        if not searched_alike or manifest.images_root != str(folder):
            return False
        return all(old == new for old, new in zip_longest(self._items, journal.items()))


def write_version(
    building: Path,
    collection: str,
    folder: Path,
    journal: Journal,
    model_id: str,
    previous: PreviousVersion | None,
    settings: IndexSettings,
    *,
    progress: Progress,
) -> tuple[Path, Manifest]:
    """Write every file of a new version into a directory of `building`; return it and the manifest.

    Blocking: use a thread. Memory does not grow with the collection. Raises BuildFailed.
    """
    existing = Volume(building.parent.parent).versions(collection)
    version = new_version(existing, time.time())
    staging = building / version
    staging.mkdir()
    count = journal.usable()
    dimension = _write_rows(staging, journal, model_id, previous, progress)
    tuned = tune(staging, count, dimension, settings, progress)
    manifest = Manifest(
        collection=collection,
        version=version,
        model_id=model_id,
        dimension=dimension,
        count=count,
        plan=tuned.plan,
        recall=tuned.recall,
        recall_target=settings.recall,
        energy=tuned.energy,
        measured=tuned.measured,
        shards=tuned.shards,
        images_root=str(folder),
        created_unix_ms=time.time_ns() // 1_000_000,
        canaries=_canaries(count),
        files={
            name: stored_file(staging / name) for name in required_files(tuned.plan, tuned.shards)
        },
    )
    return staging, manifest


def sweep(building: Path) -> None:
    """Remove the unfinished version of a failed build."""
    for leftover in building.glob("*/"):
        shutil.rmtree(leftover)


def _write_rows(
    staging: Path,
    journal: Journal,
    model_id: str,
    previous: PreviousVersion | None,
    progress: Progress,
) -> int:
    """Write catalogue and vectors in one pass; return the vectors' dimension."""
    journal.commit()
    progress.begin("writing", journal.usable(), "items")
    sizes = set[int]()
    with (staging / VECTORS).open("wb") as vectors:

        def written() -> Iterator[Item]:
            """Yield each item for the catalogue after its vector is in the file."""
            for item in journal.items():
                vector = _vector(item, journal, model_id, previous)
                sizes.add(len(vector))
                if len(sizes) > 1:  # rows of different sizes can't be distinguished
                    message = f"{model_id} gave vectors of {sorted(sizes)} bytes: all must be alike"
                    raise BuildFailed(message)
                vectors.write(vector)
                progress.advance()
                yield item

        write_items(staging / ITEMS, written())
    return sizes.pop() // _FLOAT32_BYTES


def _vector(item: Item, journal: Journal, model_id: str, previous: PreviousVersion | None) -> bytes:
    vector = journal.vector(item.sha256, model_id)
    if vector is None and previous is not None:
        vector = previous.vector(item.sha256)
    if vector is None:
        journal.forget_damaged(model_id)  # others may be damaged, too
        message = f"the vector of {item.path} is lost; run the build again"
        raise BuildFailed(message)
    return vector


def _canaries(count: int) -> tuple[int, ...]:
    return tuple(sorted({number * count // _CANARIES for number in range(_CANARIES)}))

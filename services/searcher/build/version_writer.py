"""Writes the files of a new index version beside the published versions, row by row."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from services.searcher.build.journal import Journal
from services.searcher.build.reuse import KeptVersions, Sources
from services.searcher.build.tuning import tune
from services.searcher.index.index import stored_file
from services.searcher.index.methods.registry import required_files
from services.searcher.progress import Progress
from services.searcher.settings import IndexSettings
from services.shared.errors import BuildFailed
from services.shared.volume.items import ITEMS, Item, write_items
from services.shared.volume.manifest import VECTORS, Manifest
from services.shared.volume.volume import Volume, new_version

_CANARIES: Final = 5
_FLOAT32_BYTES: Final = 4


def write_version(
    building: Path,
    sources: Sources,
    journal: Journal,
    model_id: str,
    kept: KeptVersions,
    settings: IndexSettings,
    *,
    progress: Progress,
) -> tuple[Path, Manifest]:
    """Write every file of a new version into a directory of `building`; return it and the manifest.

    Blocking: use a thread. Memory does not grow with the collection. Raises BuildFailed.
    """
    collection = building.parent.name
    existing = Volume(building.parent.parent).versions(collection)
    version = new_version(existing, time.time())
    staging = building / version
    staging.mkdir()
    count = journal.usable()
    dimension = _write_rows(staging, journal, model_id, kept, progress)
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
        close_above=tuned.close_above,
        images_root=sources.folder,
        linked_folders=sources.linked,
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
    staging: Path, journal: Journal, model_id: str, kept: KeptVersions, progress: Progress
) -> int:
    """Write catalogue and vectors in one pass; return the vectors' dimension."""
    journal.commit()
    progress.begin("writing", journal.usable(), "items")
    sizes = set[int]()
    with (staging / VECTORS).open("wb") as vectors:

        def written() -> Iterator[Item]:
            """Yield each item for the catalogue after its vector is in the file."""
            for item in journal.items():
                vector = _vector(item, journal, model_id, kept)
                sizes.add(len(vector))
                if len(sizes) > 1:  # rows of different sizes can't be distinguished
                    message = f"{model_id} gave vectors of {sorted(sizes)} bytes: all must be alike"
                    raise BuildFailed(message)
                vectors.write(vector)
                progress.advance()
                yield item

        write_items(staging / ITEMS, written())
    return sizes.pop() // _FLOAT32_BYTES


def _vector(item: Item, journal: Journal, model_id: str, kept: KeptVersions) -> bytes:
    vector = journal.vector(item.sha256, model_id) or kept.vector(item.sha256)
    if vector is None:
        journal.forget_damaged(model_id)  # others may be damaged, too
        message = f"the vector of {item.path} is lost; run the build again"
        raise BuildFailed(message)
    return vector


def _canaries(count: int) -> tuple[int, ...]:
    return tuple(sorted({number * count // _CANARIES for number in range(_CANARIES)}))

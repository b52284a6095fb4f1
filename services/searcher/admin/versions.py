"""Publishes, verifies, activates, rolls back and prunes index versions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from services.searcher.admin import pin
from services.searcher.index.index import Index
from services.shared.errors import IndexCorrupt, NoIndex, UnknownCollection, UnknownVersion
from services.shared.volume.manifest import Manifest
from services.shared.volume.volume import Volume

Fate = Literal["removed", "active", "kept", "recent", "held"]
"""The outcome of pruning. kept: among the newest. recent: a replica may be about to open
it, or has not noticed yet that another version is active. held: a process reads it."""


@dataclass(frozen=True, slots=True)
class VersionRow:
    """A version in a list; manifest is None where it can't be read."""

    collection: str
    version: str
    active: bool
    manifest: Manifest | None


@dataclass(frozen=True, slots=True)
class PruneRow:
    """The outcome, real or planned, for a version; bytes: the size of its files."""

    version: str
    fate: Fate
    bytes: int


def publish(volume: Volume, staging: Path, manifest: Manifest) -> None:
    """Publish the files in `staging`, verify them in their place, then activate the version.

    A pinned collection keeps its active version. Raises IndexCorrupt if the files are damaged; the
    old version then stays active.
    """
    volume.publish(staging, manifest)
    if pin.pinned(volume, manifest.collection) and active_version(volume, manifest.collection):
        verify(volume, manifest.collection, manifest.version)
        return
    activate(volume, manifest.collection, manifest.version)


def activate(volume: Volume, collection: str, version: str) -> None:
    """Verify a version and activate it.

    Raises IndexCorrupt, UnknownVersion, UnknownCollection.
    """
    volume.require_version(collection, version)
    verify(volume, collection, version)
    volume.activate(collection, version)


def verify(volume: Volume, collection: str, version: str) -> None:
    """Check every file of a version and its canary queries. Raises IndexCorrupt."""
    Index.open(volume, collection, version)


def rollback(volume: Volume, collection: str) -> str:
    """Activate the newest intact version older than the active version; return it.

    Raises UnknownVersion without an older version, IndexCorrupt if none of them is intact.
    """
    active = volume.active(collection)
    older = [version for version in volume.versions(collection) if version < active]
    fault: IndexCorrupt | None = None
    for version in reversed(older):
        try:
            activate(volume, collection, version)
        except IndexCorrupt as error:
            fault = fault or error
        else:
            return version
    if fault is not None:
        raise fault
    message = f"{collection} has no version older than {active}: there is nothing to go back to"
    raise UnknownVersion(message)


def prune(
    volume: Volume, collection: str, *, keep: int, min_age_seconds: float, dry_run: bool = False
) -> list[PruneRow]:
    """Remove old versions that no replica can hold; return the outcomes, oldest first.

    keep: how many of the newest versions stay besides the active one. min_age_seconds: how long a
    version must have been inactive. Damaged versions are treated alike.
    """
    active = active_version(volume, collection)
    others = [version for version in volume.versions(collection) if version != active]
    newest = set(others[len(others) - keep :]) if keep else set[str]()
    # The end of a version's activity is not recorded, but was not before ACTIVE was written.
    settled = _age(volume.home(collection) / "ACTIVE") >= min_age_seconds
    rows = []
    for version in volume.versions(collection):
        directory = volume.directory(collection, version)
        size = sum(file.stat().st_size for file in directory.iterdir())
        fate: Fate
        if version == active:
            fate = "active"
        elif version in newest:
            fate = "kept"
        elif not settled or _age(directory) < min_age_seconds:
            fate = "recent"
        elif volume.held(collection, version):
            fate = "held"
        else:
            fate = "removed" if dry_run or volume.remove(collection, version) else "held"
        rows.append(PruneRow(version, fate, size))
    return rows


def list_versions(volume: Volume) -> Iterator[VersionRow]:
    """Yield every version of every collection, oldest first."""
    for collection in volume.collections():
        active = active_version(volume, collection)
        for version in volume.versions(collection):
            try:
                manifest = volume.manifest(collection, version)
            except IndexCorrupt:
                manifest = None
            yield VersionRow(collection, version, version == active, manifest)


def active_version(volume: Volume, collection: str) -> str | None:
    """Return the active version, or None."""
    try:
        return volume.active(collection)
    except (IndexCorrupt, NoIndex, UnknownCollection):
        return None


def _age(path: Path) -> float:
    """Return the seconds since the file or folder changed; infinity if it doesn't exist."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")

"""Puts index versions into service: publish, verify by reopening, activate; and lists them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.searcher.index import Index
from services.shared.collection import Manifest, Volume
from services.shared.errors import IndexCorrupt, NoIndex, UnknownCollection


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version as a list shows it; manifest is None where it can't be read."""

    collection: str
    version: str
    active: bool
    manifest: Manifest | None


def publish(volume: Volume, staging: Path, manifest: Manifest) -> None:
    """Publish the files in `staging`, verify them where they will be read, then activate.

    Raises IndexCorrupt when what was written doesn't verify; the old version stays active.
    """
    volume.publish(staging, manifest)
    verify(volume, manifest.collection, manifest.version)
    volume.activate(manifest.collection, manifest.version)


def verify(volume: Volume, collection: str, version: str) -> None:
    """Check every file of a version and its canary queries. Raises IndexCorrupt."""
    Index.open(volume.directory(collection, version), volume.manifest(collection, version))


def list_versions(volume: Volume) -> Iterator[VersionRow]:
    """Every version of every collection, oldest first."""
    for collection in volume.collections():
        active = active_version(volume, collection)
        for version in volume.versions(collection):
            try:
                manifest = volume.manifest(collection, version)
            except IndexCorrupt:
                manifest = None
            yield VersionRow(collection, version, version == active, manifest)


def active_version(volume: Volume, collection: str) -> str | None:
    """The active version, or None where there is none."""
    try:
        return volume.active(collection)
    except (IndexCorrupt, NoIndex, UnknownCollection):
        return None

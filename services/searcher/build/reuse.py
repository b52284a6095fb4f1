"""Finds vectors in the versions that are on the volume, so that no image is embedded twice."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Final

import structlog

from services.searcher.admin import pin, versions
from services.searcher.build.journal import Journal
from services.searcher.build.vanished import Vanished
from services.searcher.settings import IndexSettings
from services.shared.errors import IndexCorrupt, SimileError
from services.shared.volume.items import ITEMS, ItemCatalog
from services.shared.volume.manifest import VECTORS
from services.shared.volume.volume import Volume

_log = structlog.get_logger(__name__)

_FLOAT32_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Sources:
    """Names the folder of the images, and the folders that links in it led to."""

    folder: str
    linked: tuple[str, ...]


class PreviousVersion:
    """A version whose vectors can be used again; it is held while the object lives."""

    def __init__(self, volume: Volume, collection: str, version: str) -> None:
        """Raises IndexCorrupt: damaged vectors must not live on in the next version."""
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
        """Return whether there is a vector of those bytes."""
        return self._items.position_of(sha256) is not None

    def vector(self, sha256: str) -> bytes | None:
        """Return the stored vector of that content; None without one."""
        position = self._items.position_of(sha256)
        if position is None:
            return None
        size = _FLOAT32_BYTES * self.manifest.dimension
        return os.pread(self._vectors, size, position * size)

    def is_current(self, journal: Journal, settings: IndexSettings, sources: Sources) -> bool:
        """Return whether a new version of what is listed would be the same, or no better."""
        manifest = self.manifest
        searched_alike = (
            settings.method in {"auto", manifest.plan.method}
            and manifest.recall_target == settings.recall
            and manifest.plan.trees in {0, settings.trees}
        )
        if not searched_alike or Sources(manifest.images_root, manifest.linked_folders) != sources:
            return False
        return all(old == new for old, new in zip_longest(self._items, journal.items()))


class KeptVersions:
    """The versions of a collection that a build compares its folder with, and takes vectors from.

    Attributes:
        base: the version before with the same model; None without a sound one.
    """

    def __init__(self, volume: Volume, collection: str, journal: Journal) -> None:
        self.base: PreviousVersion | None = None
        self._volume = volume
        self._collection = collection
        self._journal = journal
        self._older: list[PreviousVersion] = []

    def forget_other_folder(self, folder: Path) -> None:
        """Forget what is known of files where the version before was made of another folder."""
        version = pin.base_version(self._volume, self._collection)
        with contextlib.suppress(SimileError):  # `vanished` reports it
            if version is None:
                return
            if self._volume.manifest(self._collection, version).images_root != str(folder):
                self._journal.forget_files()

    def vanished(self) -> Vanished:
        """Find the images of the version before that are no longer in the folder."""
        version = pin.base_version(self._volume, self._collection)
        if version is None:
            return Vanished()
        items = self._volume.directory(self._collection, version) / ITEMS
        try:
            lease = self._volume.hold(self._collection, version)
            ItemCatalog(items).close()
            found = self._journal.vanished(items)
            del lease
        except (SimileError, sqlite3.DatabaseError) as error:
            self._log_unusable(error)
            return Vanished()
        return found

    def open(self, model_id: str) -> None:
        """Open the version before, if its vectors are of that model."""
        version = pin.base_version(self._volume, self._collection)
        self.base = None if version is None else self._opened(version, model_id)

    def find_missing(self, model_id: str) -> int:
        """Find the contents that no version has a vector of; how many."""
        base = self.base
        items = None if base is None else base.directory / ITEMS
        count = self._journal.missing(model_id, items)
        for version in reversed(self._volume.versions(self._collection)):
            if not count:
                break
            if base is None or version != base.manifest.version:
                count = self._find_in(version, model_id)
        return count

    def _find_in(self, version: str, model_id: str) -> int:
        """Take off the missing contents what a version holds; how many are left."""
        items = self._volume.directory(self._collection, version) / ITEMS
        try:
            # Only a version that helps is opened: to verify its files takes time.
            helps = items.is_file() and self._journal.misses_any_of(items)
        except sqlite3.DatabaseError as error:
            self._log_unusable(error)
            helps = False
        older = self._opened(version, model_id) if helps else None
        if older is not None:
            self._journal.find_missing(items)
            self._older.append(older)
        return self._journal.count_missing()

    def vector(self, sha256: str) -> bytes | None:
        """Return the stored vector of a content; None without one."""
        opened = [*([] if self.base is None else [self.base]), *self._older]
        found = (one.vector(sha256) for one in opened)
        return next((vector for vector in found if vector is not None), None)

    def _opened(self, version: str, model_id: str) -> PreviousVersion | None:
        """Open a version; None where it has vectors of another model, or is damaged."""
        try:
            if self._volume.manifest(self._collection, version).model_id != model_id:
                return None
            return PreviousVersion(self._volume, self._collection, version)
        except SimileError as error:
            self._log_unusable(error)
            return None

    def _log_unusable(self, error: SimileError | sqlite3.DatabaseError) -> None:
        action = error.code if isinstance(error, SimileError) else IndexCorrupt.code
        _log.warning(str(error), action=action, collection=self._collection)

"""Opens an index version: verified before it is mapped, then searched from any thread.

An index is never unloaded: the maps are freed with the last reference, after its last query.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from services.searcher.index.engine import Engine, Found
from services.searcher.index.methods import registry
from services.searcher.index.scan import Vectors
from services.shared.errors import IndexCorrupt, InvalidVector
from services.shared.volume.items import ITEMS, ItemCatalog
from services.shared.volume.manifest import Manifest, StoredFile
from services.shared.volume.volume import Lease, Volume

_UNIT_TOLERANCE: Final = 1e-2
_CANARY_DISTANCE: Final = 1e-2
_READ_BYTES: Final = 2**18

_State = tuple[int, int]
"""Size, and time of the last change, of an open file."""


class Index:
    """A version's engine and items, held against removal."""

    def __init__(
        self,
        manifest: Manifest,
        engine: Engine,
        items: ItemCatalog,
        lease: Lease,
        seals: Mapping[str, _Seal],
    ) -> None:
        self.manifest = manifest
        self.engine = engine
        self.items = items
        self._lease = lease
        self._seals = seals

    @classmethod
    def open(cls, volume: Volume, collection: str, version: str) -> Index:
        """Verify sizes and sha256, map, and try the canary queries. Blocking: use a thread.

        Raises IndexCorrupt for any missing file, and any that differs from the manifest.
        """
        lease = volume.hold(collection, version)
        manifest = volume.manifest(collection, version)
        registry.check(manifest)
        directory = volume.directory(collection, version)
        # Before anything is mapped: a damaged Annoy file crashes the process, or answers wrongly.
        # Reading also fills the page cache, so that the first query is not slow.
        seals = {name: _verified(directory / name, file) for name, file in manifest.files.items()}
        engine = Engine.open(
            directory, manifest.plan, manifest.shards, manifest.count, manifest.dimension
        )
        items = ItemCatalog(directory / ITEMS)
        if items.count != manifest.count:
            message = f"{version} lists {items.count} items, its manifest says {manifest.count}"
            raise IndexCorrupt(message)
        index = cls(manifest, engine, items, lease, seals)
        index._try_canaries()
        index.require_intact()
        return index

    def require_intact(self) -> None:
        """Raise IndexCorrupt when an open file was written to since it was verified.

        Simile never changes files in place; if another program does, no query may use them.
        """
        for name, seal in self._seals.items():
            if seal.broken:
                message = (
                    f"{name} of {self.manifest.collection} {self.manifest.version} was written to "
                    "while it was open: activate another version, or build again"
                )
                raise IndexCorrupt(message)

    def check_vector(self, vector: Vectors) -> None:
        """Raise InvalidVector for another dimension or length than 1."""
        if vector.shape != (self.manifest.dimension,):
            message = f"the vector has shape {vector.shape}, not ({self.manifest.dimension},)"
            raise InvalidVector(message)
        length = float(np.linalg.norm(vector))
        # NaN compares false: this test refuses NaN, infinity, zero, and other lengths.
        if not abs(length - 1.0) <= _UNIT_TOLERANCE:
            message = f"the vector has length {length}, not 1"
            raise InvalidVector(message)

    def _try_canaries(self) -> None:
        """Check that some stored vectors find an item at distance 0: themselves, or a duplicate."""
        for position in self.manifest.canaries:
            try:
                vector = np.array(self.engine.vectors[position])
                self.check_vector(vector)
            except (IndexError, InvalidVector) as error:
                message = f"canary {position} of {self.manifest.version} fails: {error}"
                raise IndexCorrupt(message) from error
            if not _finds_itself(self.engine.search(vector[None], 1)[0]):
                message = f"canary {position} of {self.manifest.version} does not find itself"
                raise IndexCorrupt(message)


class _Seal:
    """Detects writes to an open file; a file that replaces it does not matter."""

    def __init__(self, handle: int) -> None:
        """Take the handle, and close it with the last reference."""
        self._handle = handle
        self._state = self._now()

    @property
    def broken(self) -> bool:
        """Return whether the file has changed since."""
        return self._now() != self._state

    def _now(self) -> _State:
        status = os.fstat(self._handle)
        return status.st_size, status.st_mtime_ns

    def __del__(self) -> None:
        os.close(self._handle)


def as_vector(raw: bytes) -> Vectors:
    """Return the vector (dimension,) of a message's bytes."""
    return np.frombuffer(raw, dtype="<f4")


def stored_file(path: Path) -> StoredFile:
    """Return size and sha256 of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as content:
        while block := content.read(_READ_BYTES):
            digest.update(block)
            size += len(block)
    return StoredFile(bytes=size, sha256=digest.hexdigest())


def _verified(path: Path, expected: StoredFile) -> _Seal:
    try:
        seal = _Seal(os.open(path, os.O_RDONLY))
        found = stored_file(path)
    except OSError as error:
        message = f"{path.name} can't be read: {error}"
        raise IndexCorrupt(message) from error
    if found != expected:
        message = f"{path.name} is not what the manifest says: {found} instead of {expected}"
        raise IndexCorrupt(message)
    return seal


def _finds_itself(found: Found) -> bool:
    _, distances = found
    return len(distances) > 0 and float(distances[0]) <= _CANARY_DISTANCE

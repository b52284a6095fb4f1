"""Reads and writes the shared volume: collections, their index versions, the active version.

<root>/<collection>/ACTIVE               one line: the active version
<root>/<collection>/versions/<version>/  manifest.json, items.sqlite, vectors.f32 and, as the plan
                                         needs, reduction.npz and the files of its method
"""

from __future__ import annotations

import calendar
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from services.shared.errors import (
    IndexCorrupt,
    MalformedRequest,
    NoIndex,
    UnknownCollection,
    UnknownVersion,
)
from services.shared.volume import names
from services.shared.volume.manifest import MANIFEST, VECTORS, Manifest

_ACTIVE: Final = "ACTIVE"
_VERSIONS: Final = "versions"
_TIME: Final = "%Y%m%dT%H%M%SZ"
_LAST_SECOND: Final = 253_402_300_799  # of the year 9999
_VERSION: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")
_FLOAT32_BYTES: Final = 4


class Lease:
    """Protects a version from removal for as long as the lease is referenced.

    The lease is a shared lock on the version's manifest, which a read-only mount allows too.
    """

    def __init__(self, manifest: Path) -> None:
        """Lock the manifest. Raises IndexCorrupt when the version is missing or being removed."""
        version = manifest.parent.name
        try:
            self._handle = os.open(manifest, os.O_RDONLY)
        except OSError as error:
            message = f"version {version} can't be held: {error}"
            raise IndexCorrupt(message) from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"version {version} is being removed"
            raise IndexCorrupt(message) from error
        except OSError:
            # On a file system without locks only a version's age protects it.
            return

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            os.close(self._handle)


class Volume:
    """Reads and changes the collections of a volume, their versions, and which one is active."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def homes(self) -> list[str]:
        """Return the collections that have a folder, sorted; some may have no version yet.

        Raises OSError where the volume exists and can't be read.
        """
        if not self.root.is_dir():
            return []
        found = [path.name for path in self.root.iterdir()]
        return sorted(name for name in found if names.is_name(name))

    def collections(self) -> list[str]:
        """Return the collections that have an active version, sorted."""
        return [name for name in self.homes() if (self.root / name / _ACTIVE).is_file()]

    def active(self, collection: str) -> str:
        """Return the active version. Raises UnknownCollection, or NoIndex when none is active."""
        directory = self.home(collection)
        try:
            version = (directory / _ACTIVE).read_text().strip()
        except FileNotFoundError:
            if directory.is_dir():
                message = f"collection {collection!r} has no index yet: build one, then try again"
                raise NoIndex(message) from None
            self.require(collection)
            raise
        except (OSError, UnicodeDecodeError) as error:
            message = f"{collection}/{_ACTIVE} can't be read: {error}"
            raise IndexCorrupt(message) from error
        if not _VERSION.fullmatch(version):
            message = f"{collection}/{_ACTIVE} does not name a version: {version[:40]!r}"
            raise IndexCorrupt(message)
        return version

    def require(self, collection: str) -> None:
        """Raise UnknownCollection where the collection has no folder."""
        if not self.home(collection).is_dir():
            message = (
                f"there is no collection {collection!r}; GET /v1/collections, or "
                "`simile index list`, shows them"
            )
            raise UnknownCollection(message)

    def versions(self, collection: str) -> list[str]:
        """Return every version of the collection, oldest first."""
        directory = self.home(collection) / _VERSIONS
        if not directory.is_dir():
            return []
        return sorted(path.name for path in directory.iterdir() if _VERSION.fullmatch(path.name))

    def require_version(self, collection: str, version: str) -> None:
        """Raise UnknownCollection or UnknownVersion for a version that is not on the volume."""
        self.require(collection)
        if version not in self.versions(collection):
            message = f"{collection} has no version {version[:40]}; `simile index list` shows them"
            raise UnknownVersion(message)

    def directory(self, collection: str, version: str) -> Path:
        """Return the folder of the version, which may not exist. Raises IndexCorrupt."""
        if not _VERSION.fullmatch(version):
            message = f"{version[:40]!r} is not an index version; `simile index list` shows them"
            raise IndexCorrupt(message)
        return self.home(collection) / _VERSIONS / version

    def manifest(self, collection: str, version: str) -> Manifest:
        """Return the version's manifest. Raises IndexCorrupt when it is missing or broken."""
        try:
            text = (self.directory(collection, version) / MANIFEST).read_text()
        except (OSError, UnicodeDecodeError) as error:
            message = f"version {version} of {collection} has no readable {MANIFEST}: {error}"
            raise IndexCorrupt(message) from error
        manifest = Manifest.from_json(text)
        if (manifest.collection, manifest.version) != (collection, version):
            message = f"{MANIFEST} of {collection} {version} belongs to another version"
            raise IndexCorrupt(message)
        return manifest

    def publish(self, staging: Path, manifest: Manifest) -> None:
        """Publish the finished files in `staging` (on the same volume) as a version, by one rename.

        The version is complete or does not exist; it is not active yet.
        """
        write_synced(staging / MANIFEST, manifest.to_json())
        for name in (*manifest.files, MANIFEST):
            _sync(staging / name)
            # Read-only, so that nothing is written into a mapped file by mistake.
            (staging / name).chmod(0o444)
        _sync(staging)
        directory = self.directory(manifest.collection, manifest.version)
        directory.parent.mkdir(parents=True, exist_ok=True)
        staging.rename(directory)
        _sync(directory.parent)

    def activate(self, collection: str, version: str) -> None:
        """Make an existing version the active one. Raises IndexCorrupt if it is missing."""
        self.manifest(collection, version)
        home = self.home(collection)
        incoming = home / f"{_ACTIVE}.{os.getpid()}"
        write_synced(incoming, f"{version}\n")
        incoming.replace(home / _ACTIVE)
        _sync(home)

    def hold(self, collection: str, version: str) -> Lease:
        """Protect the version from removal while the lease is referenced. Raises IndexCorrupt."""
        return Lease(self.directory(collection, version) / MANIFEST)

    def held(self, collection: str, version: str) -> bool:
        """Return whether any process holds a lease of the version."""
        with _locked(self.directory(collection, version) / MANIFEST) as free:
            return not free

    def remove(self, collection: str, version: str) -> bool:
        """Remove a version without leases; return whether it was removed. Raises UnknownVersion."""
        directory = self.directory(collection, version)
        if not directory.is_dir():
            message = f"{collection} has no version {version}; `simile index list` shows them"
            raise UnknownVersion(message)
        with _locked(directory / MANIFEST) as free:
            if free:
                _remove_tree(directory)
            return free

    def home(self, collection: str) -> Path:
        """Return the collection's folder. Raises MalformedRequest for an invalid name."""
        if not names.is_name(collection):
            message = f"{collection[:40]!r} can't be a collection's name: {names.RULE}"
            raise MalformedRequest(message)
        return self.root / collection


def new_version(existing: Iterable[str], now: float) -> str:
    """Name a new version: `<utc>-<8 hex digits>`, later than every existing one.

    Versions are ordered by name. Where the clock was set back, or two builds end within a second,
    the name is a second later than the latest, so that a rollback finds the previous version.

    Args:
        existing: the versions of the collection.
        now: seconds since 1970.
    """
    latest = max(filter(None, map(_named_at, existing)), default=0)
    named_at = min(max(int(now), latest + 1), _LAST_SECOND)
    return time.strftime(_TIME, time.gmtime(named_at)) + f"-{secrets.token_hex(4)}"


def _named_at(version: str) -> int | None:
    """Return the second that a version is named after; None where the name has no valid time."""
    try:
        return calendar.timegm(time.strptime(version.partition("-")[0], _TIME))
    except ValueError:
        return None


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Lock the file while inside; yield whether no lease held it. A missing file is free."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield True
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        except OSError:  # a file system without locks
            free = True
        yield free
    finally:
        os.close(handle)


def _remove_tree(directory: Path) -> None:
    """Remove a folder; an error names the folder, not a file in it."""
    try:
        shutil.rmtree(directory)
    except OSError as error:
        error.filename = str(directory)
        raise


def read_vector(directory: Path, position: int, dimension: int) -> bytes:
    """Return a row of vectors.f32: little-endian float32 values. Raises IndexCorrupt."""
    return read_vectors(directory, [position], dimension)[0]


def read_vectors(directory: Path, positions: Iterable[int], dimension: int) -> list[bytes]:
    """Return rows of vectors.f32: little-endian float32 values. Raises IndexCorrupt."""
    size, rows = _FLOAT32_BYTES * dimension, list[bytes]()
    with (directory / VECTORS).open("rb") as vectors:
        for position in positions:
            vectors.seek(position * size)
            rows.append(vectors.read(size))
            if len(rows[-1]) != size:
                message = f"{VECTORS} has no row {position}"
                raise IndexCorrupt(message)
    return rows


def write_synced(path: Path, text: str) -> None:
    """Write a small text file and wait until it is on disk."""
    path.write_text(text)
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

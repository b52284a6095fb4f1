"""Copies active index versions from one volume to another, for searchers with a disk of their own.

A copy is published like a build: as a whole or not at all, verified in its place, then activated.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from dataclasses import dataclass
from typing import Final

import structlog

from services.searcher.admin import versions
from services.shared import lifecycle
from services.shared.errors import BuildFailed, SimileError
from services.shared.volume.volume import Volume

_log = structlog.get_logger(__name__)

FIRST_ROUND: Final = ".copied"
"""A file in the target's root: every collection was copied, or the copy was tried."""

_COPYING: Final = "copying"
_SETTLED_SECONDS: Final = 60.0
"""No searcher polls less often, so none still uses a version that was replaced this long ago."""


@dataclass(frozen=True, slots=True)
class Copied:
    """A version that was copied and is active now; bytes: the size of its files."""

    collection: str
    version: str
    bytes: int


def copy(source: Volume, target: Volume, collection: str) -> Copied | None:
    """Copy the active version of `source`; return None when `target` has it.

    Removes older copies that no process reads. Blocking. Only one process may copy to a target at
    a time. Raises IndexCorrupt for an unreadable or damaged version, BuildFailed for a failed
    write; the active version then stays.
    """
    version, copied = source.active(collection), None
    if versions.active_version(target, collection) != version:
        if version in target.versions(collection):
            versions.activate(target, collection, version)
        else:
            copied = _copy(source, target, collection, version)
    versions.prune(target, collection, keep=0, min_age_seconds=_SETTLED_SECONDS)
    return copied


def _copy(source: Volume, target: Volume, collection: str, version: str) -> Copied:
    manifest = source.manifest(collection, version)
    lease = source.hold(collection, version)
    staging = target.home(collection) / _COPYING / version
    try:
        # An earlier attempt may have left a part.
        shutil.rmtree(staging.parent, ignore_errors=True)
        staging.mkdir(parents=True)
        directory = source.directory(collection, version)
        for name in manifest.files:
            shutil.copyfile(directory / name, staging / name)
        versions.publish(target, staging, manifest)
    except OSError as error:
        message = f"{collection} {version} can't be copied to {target.root}: {error}"
        raise BuildFailed(message) from error
    finally:
        del lease
    return Copied(collection, version, manifest.bytes)


async def follow(
    source: Volume, target: Volume, *, every_seconds: float, stop: asyncio.Event
) -> None:
    """Copy repeatedly until `stop`; failures are logged and retried.

    After the first round `target` has the file FIRST_ROUND, for a cluster's startup probe: the
    searcher in the same pod starts when its first indexes are there, or there are none.
    """
    while not stop.is_set():
        try:
            collections = await asyncio.to_thread(source.collections)
        except OSError as error:
            _log.warning(f"{source.root} can't be read: {error}", action="volume_unreadable")
        else:
            for collection in collections:
                # A copy takes minutes: a signal must not wait for it.
                await lifecycle.unless_stopped(stop, _try_copy(source, target, collection))
            await asyncio.to_thread(_mark, target)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), every_seconds)


async def _try_copy(source: Volume, target: Volume, collection: str) -> None:
    try:
        copied = await asyncio.to_thread(copy, source, target, collection)
    except SimileError as error:
        _log.warning(str(error), action=error.code, collection=collection)
    else:
        if copied is not None:
            _log.info("copied", action="index_copied", collection=collection,
                      index_version=copied.version, bytes=copied.bytes)  # fmt: skip


def _mark(target: Volume) -> None:
    try:
        target.root.mkdir(parents=True, exist_ok=True)
        (target.root / FIRST_ROUND).touch()
    except OSError as error:
        _log.warning(f"{target.root} can't be written: {error}", action=BuildFailed.code)

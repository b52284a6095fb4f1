"""Pins a collection to its active version: builds publish a version without activating it.

<root>/<collection>/PINNED exists while the collection is pinned.
"""

from __future__ import annotations

from typing import Final

from services.shared.errors import SimileError
from services.shared.volume.volume import Volume, write_synced

_PINNED: Final = "PINNED"


def pin(volume: Volume, collection: str) -> None:
    """Stop builds from activating their versions. Raises NoIndex without an active version."""
    version = volume.active(collection)
    write_synced(volume.home(collection) / _PINNED, f"{version}\n")


def unpin(volume: Volume, collection: str) -> None:
    """Let builds activate their versions again. Raises NoIndex, UnknownCollection."""
    volume.active(collection)
    (volume.home(collection) / _PINNED).unlink(missing_ok=True)


def pinned(volume: Volume, collection: str) -> bool:
    """Return whether builds must keep the active version."""
    return (volume.home(collection) / _PINNED).exists()


def base_version(volume: Volume, collection: str) -> str | None:
    """Return the version that a build compares the folder with; None without a readable version.

    For a pinned collection this is the newest readable version: compared with the active version,
    each build would publish the same version again.
    """
    try:
        active = volume.active(collection)
    except SimileError:
        return None
    if pinned(volume, collection):
        for version in reversed(volume.versions(collection)):
            try:
                volume.manifest(collection, version)
            except SimileError:
                continue
            return version
    return active

"""Pins a collection to its active version: builds publish, but activate nothing.

<root>/<collection>/PINNED is there as long as the collection is pinned.
"""

from __future__ import annotations

from typing import Final

from services.shared.errors import SimileError
from services.shared.volume.volume import Volume, write_synced

_PINNED: Final = "PINNED"


def pin(volume: Volume, collection: str) -> None:
    """Keep builds from activating what they publish. Raises NoIndex where nothing is active."""
    version = volume.active(collection)
    write_synced(volume.home(collection) / _PINNED, f"{version}\n")


def unpin(volume: Volume, collection: str) -> None:
    """Let builds activate what they publish. Raises NoIndex, UnknownCollection."""
    volume.active(collection)
    (volume.home(collection) / _PINNED).unlink(missing_ok=True)


def pinned(volume: Volume, collection: str) -> bool:
    """Whether a build must leave the active version as it is."""
    return (volume.home(collection) / _PINNED).exists()


def base_version(volume: Volume, collection: str) -> str | None:
    """The version that a build compares the folder with; None where there is none to read.

    Of a pinned collection it is the newest readable one: else each build would publish the same
    again, since the active version stays behind.
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

"""Locks a collection for a build or for its removal: only one of them runs at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from services.shared.errors import BuildInProgress


@contextlib.contextmanager
def locked(home: Path) -> Iterator[None]:
    """Hold the build lock of the collection in `home`. Raises BuildInProgress."""
    path = home / ".lock"
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"another build of {home.name} runs now; wait for it, or stop it"
            raise BuildInProgress(message) from None
        if not _is_same(lock.fileno(), path):
            message = f"{home.name} was deleted a moment ago; run the command again"
            raise BuildInProgress(message)
        yield


def _is_same(handle: int, path: Path) -> bool:
    """Return whether the file is still the one at the path."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False

"""Locks a collection so that only one build of it runs at a time."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from services.shared.errors import BuildInProgress


@contextlib.contextmanager
def locked(home: Path) -> Iterator[None]:
    """Hold the build lock of the collection in `home`. Raises BuildInProgress."""
    with (home / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"another build of {home.name} runs now; wait for it, or stop it"
            raise BuildInProgress(message) from None
        yield

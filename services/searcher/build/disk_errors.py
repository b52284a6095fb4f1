"""Distinguishes a full disk from other errors of a build's files, and names the remedy."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Final

from services.shared.errors import BuildFailed

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NUMPY_SHORT_WRITE: Final = re.compile(r"\d+ requested and \d+ written")
"""numpy raises an OSError without errno for a short write."""
_PRIMARY_CODE: Final = 0xFF
_HARDLY_ANY_BYTES: Final = 2**20
_SQLITE_TEMPORARY: Final = "/var/tmp"  # noqa: S108 (where SQLite sorts by default)


def explained(home: Path, error: OSError | sqlite3.Error) -> BuildFailed:
    """Return the failure of a build whose files are in `home`, in words for the operator."""
    full = _full_place(home)
    if not _is_full(error, hardly_any=full is not None):
        if isinstance(error, OSError) and error.strerror is not None:
            return BuildFailed(f"{error.filename or home} can't be used: {error.strerror}")
        return BuildFailed(f"{home} can't be used: {error}")
    return BuildFailed(
        f"no space left for {full or home} ({error}): make room there, by `simile index prune` "
        "or a larger volume, then run the build again; it continues where it stopped, and the "
        "active version answers meanwhile"
    )


def _is_full(error: OSError | sqlite3.Error, *, hardly_any: bool) -> bool:
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0)
        # SQLite reports a failed extension of its shared-memory file as an I/O error.
        return code == sqlite3.SQLITE_FULL or (
            hardly_any and code & _PRIMARY_CODE == sqlite3.SQLITE_IOERR
        )
    return error.errno in _FULL or _NUMPY_SHORT_WRITE.search(str(error)) is not None


def _full_place(home: Path) -> Path | None:
    """Return the full one of the volume and SQLite's temporary folder, if any."""
    given = (os.environ.get(name) for name in ("SQLITE_TMPDIR", "TMPDIR"))
    others = (*filter(None, given), _SQLITE_TEMPORARY, tempfile.gettempdir())
    places = [home, *(Path(other) for other in others if Path(other).is_dir())]
    return next((place for place in places if _free(place) < _HARDLY_ANY_BYTES), None)


def _free(place: Path) -> int:
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return _HARDLY_ANY_BYTES

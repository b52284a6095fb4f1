"""Records on the volume the admin ports of `simile up`, so that `simile top` finds them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

_NOTE: Final = ".up.json"


@contextlib.contextmanager
def noted(root: Path, admin_urls: Sequence[str]) -> Iterator[None]:
    """Keep the record inside the context; a read-only volume has none."""
    note = root / _NOTE
    text = json.dumps({"pid": os.getpid(), "admin": list(admin_urls)})
    with contextlib.suppress(OSError):
        root.mkdir(parents=True, exist_ok=True)
        note.write_text(text)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            # Another `up` on this volume may have written its own record meanwhile.
            if note.read_text() == text:
                note.unlink()


def admin_urls(root: Path) -> Sequence[str]:
    """Return the admin addresses of the `simile up` that runs on this volume; none of none."""
    try:
        note = json.loads((root / _NOTE).read_text())
        return [str(url) for url in note["admin"]] if _lives(int(note["pid"])) else []
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

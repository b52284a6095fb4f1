"""Finds the image files of a folder by their suffixes, for commands that send images."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SUFFIXES: Final = frozenset(
    (
        ".avif",
        ".bmp",
        ".gif",
        ".heic",
        ".heif",
        ".j2k",
        ".jp2",
        ".jpeg",
        ".jpg",
        ".png",
        ".tif",
        ".tiff",
        ".webp",
    )
)


def image_files(folder: Path) -> Iterator[Path]:
    """Yield the image files of a folder and its sub-folders, in the order of their names.

    Files and folders whose name begins with a dot, and empty files, are left out.
    """
    for inside, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(inside, name)
            known = not name.startswith(".") and file.suffix.lower() in SUFFIXES
            if known and file.stat().st_size:
                yield file

"""Reads the query images: some of a folder, chosen by a seed, before the measurement."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from services.shared.errors import MalformedRequest

_SEED: Final = 20180501
_SUFFIXES: Final = frozenset(
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


def read_images(folder: Path, max_images: int) -> Sequence[bytes]:
    """Read at most `max_images` images of the folder and its sub-folders, always the same ones.

    Raises MalformedRequest where there is none.
    """
    found = sorted(_image_files(folder))
    if not found:
        message = f"no image in {folder}: give a folder of JPEG, PNG, WebP, HEIC... with --images"
        raise MalformedRequest(message)
    chooser = random.Random(_SEED)  # noqa: S311 (a choice, not a secret)
    return [file.read_bytes() for file in chooser.sample(found, min(max_images, len(found)))]


def _image_files(folder: Path) -> Iterator[Path]:
    """Yield the files with a suffix of an image, without empty ones."""
    for inside, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            file = Path(inside, name)
            known = not name.startswith(".") and file.suffix.lower() in _SUFFIXES
            if known and file.stat().st_size:
                yield file

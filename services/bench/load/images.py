"""The images to ask with: some of a folder, chosen by a seed, read before the clock starts."""

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


def read_images(folder: Path, most: int) -> Sequence[bytes]:
    """Up to `most` images of the folder and those in it; the same ones every time.

    Raises MalformedRequest where there is none.
    """
    found = sorted(_image_files(folder))
    if not found:
        message = f"no image in {folder}: give a folder of JPEG, PNG, WebP, HEIC... with --images"
        raise MalformedRequest(message)
    chooser = random.Random(_SEED)  # noqa: S311 (a choice, not a secret)
    return [file.read_bytes() for file in chooser.sample(found, min(most, len(found)))]


def _image_files(folder: Path) -> Iterator[Path]:
    """By their names, the empty left out: whether the target takes them is the target's to say."""
    for inside, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            file = Path(inside, name)
            known = not name.startswith(".") and file.suffix.lower() in _SUFFIXES
            if known and file.stat().st_size:
                yield file

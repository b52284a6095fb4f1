"""Reads the query images: some of a folder, chosen by a seed, before the measurement."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from services.shared.errors import MalformedRequest
from services.shared.image_files import image_files

_SEED: Final = 20180501


def read_images(folder: Path, max_images: int) -> Sequence[bytes]:
    """Read at most `max_images` images of the folder and its sub-folders, always the same ones.

    Raises MalformedRequest where there is none.
    """
    found = sorted(image_files(folder))
    if not found:
        message = f"no image in {folder}: give a folder of JPEG, PNG, WebP, HEIC... with --images"
        raise MalformedRequest(message)
    chooser = random.Random(_SEED)  # noqa: S311 (a choice, not a secret)
    return [file.read_bytes() for file in chooser.sample(found, min(max_images, len(found)))]

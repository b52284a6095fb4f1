"""Provides the images that are sent, and the plain Annoy file that all rivals search."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import annoy

from tests.benchmarks import photographs
from tests.benchmarks.datasets import CACHE
from tests.benchmarks.rivals.similarity import DIMENSION, IDS, INDEX

HOME: Final = CACHE / "serving"
_TREES: Final = 10
_SEED: Final = 0
_SENT: Final = 256
_SENT_BYTES: Final = range(10_000, 200_000)


def index() -> Path:
    """Return the folder of the Annoy file, angular, 10 trees, and of the ids; built at first."""
    folder = HOME / "index"
    if not (folder / IDS).exists():
        folder.mkdir(parents=True, exist_ok=True)
        vectors = photographs.embedded(CACHE / "photographs.npy")
        built = annoy.AnnoyIndex(DIMENSION, "angular")
        built.set_seed(_SEED)
        for position, vector in enumerate(vectors.tolist()):
            built.add_item(position, vector)
        built.build(_TREES)
        built.save(str(folder / INDEX))
        root = photographs.paths()[0].parents[1]
        names = [str(path.relative_to(root)) for path in photographs.paths()]
        (folder / IDS).write_text(json.dumps(names))
    return folder


def sent() -> Sequence[Path]:
    """Return a seeded choice of the collection's photographs of a common size, in seeded order."""
    fit = [path for path in photographs.paths() if path.stat().st_size in _SENT_BYTES]
    return random.Random(_SEED).sample(fit, _SENT)  # noqa: S311 (a choice that is the same again)

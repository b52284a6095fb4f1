"""Embeds real photographs with the product's own model and preprocessing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import click
import numpy as np

from services.searcher.index.scan import Vectors
from services.shared.imaging import Limits

_BESIDE: Final = Path(__file__).resolve().parents[2].parent / "shared" / "data"
LIMITS: Final = Limits(15 * 2**20, 64_000_000, 100.0)
_BATCH: Final = 8


def embedded(cache: Path) -> Vectors:
    """Return vectors of unit length, shape (photographs, 1280), in path order; cached."""
    if not cache.exists():
        vectors = _embed(paths())
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_suffix(".partial.npy")
        np.save(partial, vectors)
        partial.rename(cache)
    stored: Vectors = np.load(cache)
    return stored


def paths() -> list[Path]:
    """Return the photographs, sorted. Raises ClickException when there are none."""
    folder = Path(os.environ.get("SIMILE_TEST_DATA", _BESIDE)) / "collection"
    if not folder.is_dir():
        message = f"no {folder}: set SIMILE_TEST_DATA to a folder that has collection/"
        raise click.ClickException(message)
    return sorted(path for path in folder.glob("*/*") if path.is_file())


def _embed(paths: Sequence[Path]) -> Vectors:
    # Imported here: half of the benchmark's runs need no torch.
    from services.embedder.models import loading  # noqa: PLC0415
    from services.embedder.settings import EmbedderSettings  # noqa: PLC0415

    # This runtime's model may be shared by several threads.
    model, *_ = loading.load(EmbedderSettings(runtime="onnxruntime", device="cpu"), LIMITS)

    def embed(start: int) -> Vectors:
        pixels = [model.prepare(path.read_bytes()) for path in paths[start : start + _BATCH]]
        return model.embed(np.stack(pixels))

    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        vectors = np.concatenate(list(threads.map(embed, range(0, len(paths), _BATCH))))
    unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("<f4")
    return unit

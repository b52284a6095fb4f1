"""Where the photographs for tests are: beside the checkout, never in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def _folder(name: str) -> Path:
    root = Path(os.environ.get("SIMILE_TEST_DATA", _BESIDE))
    folder = root / name
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set SIMILE_TEST_DATA to a folder that has {name}/")
    return folder


def collection_dir() -> Path:
    """Sub-folders of photographs, a class each; skips the test where there are none."""
    return _folder("collection")


def awkward_dir() -> Path:
    """Hostile and odd image files with NOTES.csv; skips the test where there are none."""
    return _folder("awkward")

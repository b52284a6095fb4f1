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


def case_bombs() -> list[Path]:
    """Files that once cost far more than an image's worth; skips the test where there are none."""
    root = Path(os.environ.get("SIMILE_TEST_DATA", _BESIDE))
    found = sorted(path for path in (root.parent / "cases" / "bombs").glob("*") if path.is_file())
    if not found:
        pytest.skip(f"no cases/bombs beside {root}: set SIMILE_TEST_DATA to the data next to it")
    return found


def awkward_dir() -> Path:
    """Hostile and odd image files with NOTES.csv; skips the test where there are none."""
    return _folder("awkward")


def cases_dir() -> Path:
    """Small files that other programs wrote; skips the test where there are none."""
    folder = Path(os.environ.get("SIMILE_TEST_DATA", _BESIDE)).parent / "cases"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set SIMILE_TEST_DATA to the data next to it")
    return folder

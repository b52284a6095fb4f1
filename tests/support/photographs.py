"""Finds the photographs for tests, which lie beside the checkout and are never part of it."""

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
    """Return a folder of photographs by class; skip the test where it is missing."""
    return _folder("collection")


def case_bombs() -> list[Path]:
    """Return files that once cost far more than an image may; skip the test without them."""
    root = Path(os.environ.get("SIMILE_TEST_DATA", _BESIDE))
    found = sorted(path for path in (root.parent / "cases" / "bombs").glob("*") if path.is_file())
    if not found:
        pytest.skip(f"no cases/bombs beside {root}: set SIMILE_TEST_DATA to the data next to it")
    return found


def awkward_dir() -> Path:
    """Return a folder of hostile and odd images with NOTES.csv; skip the test without it."""
    return _folder("awkward")


def cases_dir() -> Path:
    """Return a folder of small files that other programs wrote; skip the test without it."""
    folder = Path(os.environ.get("SIMILE_TEST_DATA", _BESIDE)).parent / "cases"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set SIMILE_TEST_DATA to the data next to it")
    return folder

"""Tests that metadata costs a decoder no more than an image may cost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from services.shared import imaging
from services.shared.errors import SimileError
from tests.hostile.metadata import METADATA
from tests.hostile.watched import Child, child

LIMITS: Final = imaging.Limits(15 * 2**20, 64_000_000, 100.0)
MAX_CPU_SECONDS: Final = 2.0
"""The limit for sniffing and decoding together; the highest measured is 0.4 s."""

SLACK: Final = 96 * 2**20
"""Allows for the file's bytes and copies of them."""


@pytest.fixture(scope="module")
def process() -> Iterator[Child]:
    """Run a decoding process for all files."""
    with child(LIMITS.max_pixels) as running:
        yield running


@pytest.mark.parametrize("name", METADATA)
def test_metadata_costs_no_more_than_an_image_may(
    name: str, tmp_path: Path, process: Child
) -> None:
    """CPU time and memory stay within their bounds, and the result is a picture or a 4xx."""
    path, foreseen = tmp_path / "bomb", 0
    path.write_bytes(METADATA[name]())
    with contextlib.suppress(SimileError):
        foreseen = imaging.probe(path.read_bytes(), LIMITS).memory()
    cost = process.decode(path, 358)
    assert cost["outcome"] in {"decoded", "undecodable_image"}, cost
    assert cost["cpu_seconds"] <= MAX_CPU_SECONDS, cost
    assert cost["peak_bytes"] <= foreseen + SLACK, cost

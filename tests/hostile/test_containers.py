"""Tests that files which reference the same bytes many times are refused at little cost."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

from tests.hostile.containers import KINDS, variants
from tests.hostile.watched import child
from tests.support import photographs

MAX_PIXELS: Final = 64_000_000
MAX_CPU_SECONDS: Final = 2.0
MAX_BYTES: Final = 256 * 2**20


def _check_refused(files: Iterable[Path]) -> None:
    """Sniff and decode all files in one process, which must survive."""
    with child(MAX_PIXELS) as process:
        for path in files:
            result = process.decode(path)
            assert 400 <= result["status"] < 500, (path.name, result)
            assert result["cpu_seconds"] <= MAX_CPU_SECONDS, (path.name, result)
            assert result["peak_bytes"] <= MAX_BYTES, (path.name, result)


@pytest.mark.parametrize("kind", KINDS)
def test_repeated_references_cost_no_more_than_an_image(kind: str, tmp_path: Path) -> None:
    """Ten files of each kind get 4xx within 2 CPU seconds and 256 MiB."""
    files = [tmp_path / str(number) for number in range(10)]
    for path, image in zip(files, variants(kind), strict=True):
        path.write_bytes(image)
    _check_refused(files)


def test_the_bombs_of_the_cases_are_refused() -> None:
    """The files of the shared test cases are refused, too."""
    _check_refused(photographs.case_bombs())

"""The progress bar of a long build shows a rate."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from services.searcher.progress import RichProgress


@pytest.mark.parametrize("unit", ["trees", ""])
def test_the_rate_has_its_unit(unit: str) -> None:
    """The rate is in units a second, and absent for a stage without units."""
    out = io.StringIO()
    progress = RichProgress(Console(file=out, force_terminal=True, width=120))
    progress.begin("growing", 10, unit)
    for _ in range(4):
        progress.advance(failed=False)
    progress.advance(2, failed=True)
    while "2 failed" not in out.getvalue():
        time.sleep(0.01)
    progress.close()
    assert "6 of 10" in out.getvalue()
    assert (" trees/s" in out.getvalue()) == bool(unit)

"""The bar of a long build."""

from __future__ import annotations

import itertools

import pytest

from services.searcher.progress import RichProgress


@pytest.mark.parametrize(("unit", "rate"), [("trees", "1 trees/s"), ("", "")])
def test_the_rate_says_of_what(unit: str, rate: str) -> None:
    """Units a second; nothing for a stage whose steps say nothing about speed."""
    seconds = itertools.count()
    progress = RichProgress()
    progress._bar.get_time = lambda: float(next(seconds) // 2)
    progress.begin("growing", 10, unit)
    for _ in range(4):
        progress.advance(failed=False)
    progress.advance(2, failed=True)
    task = progress._bar.tasks[-1]
    assert task.completed == 6
    assert task.fields["failures"] == "2 failed"
    assert task.fields["rate"].partition(" ")[2] == rate.partition(" ")[2]

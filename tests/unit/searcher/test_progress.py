"""The progress bar of a long build shows a rate."""

from __future__ import annotations

import itertools

import pytest

from services.searcher.progress import RichProgress


@pytest.mark.parametrize(("unit", "rate"), [("trees", "1 trees/s"), ("", "")])
def test_the_rate_has_its_unit(unit: str, rate: str) -> None:
    """The rate is in units a second, and absent for a stage without units."""
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

"""A stopwatch accounts for all time, and reports each stage once."""

from __future__ import annotations

import pytest

from services.shared.telemetry.stopwatch import Lap, Stopwatch


def test_each_lap_begins_where_the_one_before_ended() -> None:
    """No time between two stages is lost, and their sum is the whole time."""
    watch = Stopwatch(10.0)
    watch.lap("decode", 10.5)
    watch.lap("model", 12.0)
    assert watch.laps == [Lap("decode", 10.0, 10.5), Lap("model", 10.5, 12.0)]
    assert sum(watch.stages.values()) == watch.last - watch.began


def test_a_stage_that_goes_on_is_one_lap() -> None:
    """Two successive laps of a stage are one; later laps add to its time."""
    watch = Stopwatch(0.0)
    watch.lap("decode", 1.0)
    watch.lap("decode", 2.0)
    watch.lap("model", 5.0)
    watch.lap("decode", 6.0)
    assert [lap.stage for lap in watch.laps] == ["decode", "model", "decode"]
    assert watch.stages == {"decode": 3.0, "model": 3.0}


def test_skipped_time_is_left_out() -> None:
    """Skipped time belongs to no stage, and is returned."""
    watch = Stopwatch(0.0)
    watch.lap("publish", 1.0)
    assert watch.skip(4.0) == 3.0
    watch.lap("reply", 4.5)
    assert watch.stages == {"publish": 1.0, "reply": 0.5}


def test_time_does_not_go_back() -> None:
    """An end before the last one counts as 0, so that no stage takes negative time."""
    watch = Stopwatch(5.0)
    assert watch.lap("decode", 4.0) == 0.0
    assert watch.skip(3.0) == 0.0
    assert watch.last == pytest.approx(5.0)

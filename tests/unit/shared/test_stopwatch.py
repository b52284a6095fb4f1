"""A stopwatch leaves no time out, and reports each stage once."""

from __future__ import annotations

import pytest

from services.shared.telemetry.stopwatch import Lap, Stopwatch


def test_each_lap_begins_where_the_one_before_ended() -> None:
    """Nothing between two stages is lost, and all of them are the whole."""
    watch = Stopwatch(10.0)
    watch.lap("decode", 10.5)
    watch.lap("model", 12.0)
    assert watch.laps == [Lap("decode", 10.0, 10.5), Lap("model", 10.5, 12.0)]
    assert sum(watch.stages.values()) == watch.last - watch.began


def test_a_stage_that_goes_on_is_one_lap() -> None:
    """Two laps in a row of one stage are one; later ones add to its time."""
    watch = Stopwatch(0.0)
    watch.lap("decode", 1.0)
    watch.lap("decode", 2.0)
    watch.lap("model", 5.0)
    watch.lap("decode", 6.0)
    assert [lap.stage for lap in watch.laps] == ["decode", "model", "decode"]
    assert watch.stages == {"decode": 3.0, "model": 3.0}


def test_time_that_is_anothers_is_left_out() -> None:
    """Skipped time belongs to no stage, and is reported."""
    watch = Stopwatch(0.0)
    watch.lap("publish", 1.0)
    assert watch.skip(4.0) == 3.0
    watch.lap("reply", 4.5)
    assert watch.stages == {"publish": 1.0, "reply": 0.5}


def test_time_does_not_go_back() -> None:
    """An end before the last one counts as none: a stage never takes less than nothing."""
    watch = Stopwatch(5.0)
    assert watch.lap("decode", 4.0) == 0.0
    assert watch.skip(3.0) == 0.0
    assert watch.last == pytest.approx(5.0)

"""Who is let in, who is sent away, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from services.shared.errors import Overloaded
from services.upload.admission import Admission


@dataclass
class _Clock:
    """A clock that tests move."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> _Clock:
    """At zero."""
    return _Clock()


def _door(clock: _Clock, *, max_in_flight: int = 100, chance: float = 0.0) -> Admission:
    return Admission(
        max_in_flight=max_in_flight, deadline_seconds=5.0, clock=clock, chance=lambda: chance
    )


def _serve(door: Admission, clock: _Clock, *, together: int, seconds: float, turns: int) -> None:
    """So many queries at a time, each of which takes so long; turn after turn."""
    for _ in range(turns):
        asked = [door.paced() for _ in range(together)]
        for one in asked:
            one.__enter__()
        clock.now += seconds
        for one in asked:
            one.__exit__(None, None, None)


def test_at_first_only_the_setting_counts(clock: _Clock) -> None:
    """Nothing is known of the embedders yet: as many as were set are let in, and no more."""
    door = _door(clock, max_in_flight=2)
    with door.admitted(), door.admitted():
        assert door.in_flight == 2
        with pytest.raises(Overloaded, match="2 queries"), door.admitted():
            pytest.fail("one too many was let in")
    assert door.in_flight == 0


def test_no_more_are_let_in_than_can_be_answered_in_time(clock: _Clock) -> None:
    """Answers that come at 10 a second leave room for 40 within 5 s, some to spare."""
    door = _door(clock)
    _serve(door, clock, together=1, seconds=0.1, turns=50)
    assert door.limit == 40


def test_who_waits_less_long_is_let_in_less_easily(clock: _Clock) -> None:
    """Of 10 answers a second, 8 queries ahead leave no room for a caller who waits a second."""
    door = _door(clock)
    _serve(door, clock, together=1, seconds=0.1, turns=50)
    door.in_flight = 8
    with pytest.raises(Overloaded), door.admitted(1.0):
        pytest.fail("it could not be answered in time")
    with door.admitted(2.0), door.admitted(60.0), door.admitted():
        assert door.in_flight == 11
    door.in_flight = 3
    with door.admitted(0.001):
        pass


def test_little_to_do_closes_no_door(clock: _Clock) -> None:
    """A query now and then says nothing bad about the pace, however long the pauses are."""
    door = _door(clock)
    for _ in range(100):
        clock.now += 600
        _serve(door, clock, together=1, seconds=0.02, turns=1)
    assert door.limit == 100


def test_a_slow_model_is_noticed_and_forgotten(clock: _Clock) -> None:
    """Embedders that become slow lower the limit; when they are quick again it rises."""
    door = _door(clock)
    _serve(door, clock, together=1, seconds=0.01, turns=100)
    assert door.limit == 100
    _serve(door, clock, together=1, seconds=1.0, turns=200)
    assert door.limit == 4
    _serve(door, clock, together=1, seconds=0.01, turns=200)
    assert door.limit == 100


def test_deadlines_that_pass_close_the_door(clock: _Clock) -> None:
    """Answers that never come let the limit fall, but never so far that none could come."""
    door = _door(clock)
    _serve(door, clock, together=1, seconds=0.01, turns=10)
    for _ in range(500):
        door.too_late()
    assert door.limit == 4


def test_an_error_says_nothing_about_the_pace(clock: _Clock) -> None:
    """A refusal by the broker comes in no time, which must not look like a quick answer."""
    door = _door(clock)
    _serve(door, clock, together=1, seconds=0.5, turns=100)
    before = door.limit
    for _ in range(100):
        with pytest.raises(Overloaded), door.paced():
            raise Overloaded
    assert door.limit == before


def test_who_is_refused_is_told_when_to_come_back(clock: _Clock) -> None:
    """When those on their way are done; some later, so that they don't come as one."""
    early, late = _door(clock), _door(clock, chance=1.0)
    for door in (early, late):
        _serve(door, clock, together=1, seconds=0.2, turns=50)
        door.in_flight = 20
    assert early.retry_after_seconds == 4
    assert late.retry_after_seconds == 6
    assert early.overloaded("full").retry_after_seconds == 4
    early.in_flight = 10_000
    assert early.retry_after_seconds == 30
    assert _door(clock).retry_after_seconds == 1

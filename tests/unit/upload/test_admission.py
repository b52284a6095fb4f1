"""Who is let in, who is sent away, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import pytest

from services.shared.errors import Overloaded
from services.shared.lifecycle import cancel
from services.upload.search.admission import Admission
from services.upload.search.reservations import Reservation


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
        asked = [door.measure() for _ in range(together)]
        for one in asked:
            one.__enter__()
        clock.now += seconds
        for one in asked:
            one.__exit__(None, None, None)


def test_at_first_only_the_setting_counts(clock: _Clock) -> None:
    """Nothing is known of the embedders yet: as many as were set are let in, and no more."""
    door = _door(clock, max_in_flight=2)
    with door.acquire_now(), door.acquire_now():
        assert door.in_flight == 2
        with pytest.raises(Overloaded, match="2 queries"), door.acquire_now():
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
    with pytest.raises(Overloaded), door.acquire_now(1.0):
        pytest.fail("it could not be answered in time")
    with door.acquire_now(2.0), door.acquire_now(60.0), door.acquire_now():
        assert door.in_flight == 11
    door.in_flight = 3
    with door.acquire_now(0.001):
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
        with pytest.raises(Overloaded), door.measure():
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


async def test_a_kept_place_is_taken_when_the_image_is_there(clock: _Clock) -> None:
    """Nobody else gets it meanwhile, and its own query is not refused after it sent its image."""
    door = _door(clock, max_in_flight=1)
    with door.reserve("one") as reservation:
        with pytest.raises(Overloaded), door.reserve("other"):
            pytest.fail("the only place was kept twice")
        async with door.acquire(reservation, 0):
            assert door.in_flight == 1
    assert door.in_flight == 0


async def test_a_slow_image_keeps_its_place_for_a_second(clock: _Clock) -> None:
    """Others get the place then; the slow query takes the next one that comes free."""
    door = _door(clock, max_in_flight=1)
    with door.reserve("slow") as slow:
        clock.now += 1.1
        with door.reserve("quick") as quick:
            async with door.acquire(quick, 0):
                waiting = asyncio.create_task(_placed(door, slow))
                await asyncio.sleep(0)
                assert (door.waiting, door.in_flight) == (1, 1)
            assert await waiting == 1
    assert door.in_flight == 0


def test_one_callers_images_keep_a_quarter_of_the_places(clock: _Clock) -> None:
    """However many it begins to send, others find three quarters."""
    door = _door(clock, max_in_flight=8)
    with contextlib.ExitStack() as arriving:
        for caller in ["many"] * 20 + [str(number) for number in range(6)]:
            arriving.enter_context(door.reserve(caller))
        with pytest.raises(Overloaded), door.reserve("late"):
            pytest.fail("one too many was let in")


async def test_who_waits_is_let_in_in_order_and_within_a_time(clock: _Clock) -> None:
    """Each gets the next free place; whose time is over is refused; some may not wait at all."""
    door = _door(clock, max_in_flight=1)
    async with door.acquire(Reservation(), 0):
        first, second = (asyncio.create_task(_placed(door, Reservation())) for _ in range(2))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await _placed(door, Reservation(), wait_seconds=0.01)
        with pytest.raises(Overloaded):
            await _placed(door, Reservation(waits=False))
        assert door.waiting == 1  # no more wait than may be in flight
        with pytest.raises(Overloaded):
            await second
    assert await first == 1
    assert (door.waiting, door.in_flight) == (0, 0)


async def test_who_leaves_while_waiting_takes_no_place(clock: _Clock) -> None:
    """A wait that is cancelled is forgotten, even when its place came at that moment."""
    door = _door(clock, max_in_flight=1)
    async with door.acquire(Reservation(), 0):
        gone = asyncio.create_task(_placed(door, Reservation()))
        await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert (door.waiting, door.in_flight) == (0, 0)
    async with door.acquire(Reservation(), 0):
        gone = asyncio.create_task(_placed(door, Reservation()))
        await asyncio.sleep(0)
        await cancel(gone)
    assert (door.waiting, door.in_flight) == (0, 0)


async def _placed(door: Admission, reservation: Reservation, wait_seconds: float = 10) -> int:
    """The queries in flight when the reservation's query has its place."""
    async with door.acquire(reservation, wait_seconds):
        return door.in_flight

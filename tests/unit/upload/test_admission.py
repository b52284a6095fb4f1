"""Admission decides which queries are accepted, which wait, and when refused callers may retry."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from services.shared.errors import Overloaded
from services.shared.lifecycle import cancel
from services.upload.search.admission import Admission
from services.upload.search.admission_control import AdmissionControl
from services.upload.search.deadlines import batch_deadline
from services.upload.search.queries import QueryLimits
from services.upload.search.reservations import Reservation
from tests.support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    """Return a clock at zero."""
    return Clock(0.0)


def _admission(clock: Clock, *, max_in_flight: int = 100, chance: float = 0.0) -> Admission:
    return Admission(
        max_in_flight=max_in_flight, deadline_seconds=5.0, clock=clock, chance=lambda: chance
    )


def _serve(
    admission: Admission, clock: Clock, *, together: int, seconds: float, turns: int
) -> None:
    """Serve queries in turns: `together` at a time, each of which takes `seconds`."""
    for _ in range(turns):
        asked = [admission.measure() for _ in range(together)]
        for one in asked:
            one.__enter__()
        clock.now += seconds
        for one in asked:
            one.__exit__(None, None, None)


def test_at_first_only_the_setting_counts(clock: Clock) -> None:
    """Without measurements, the setting alone limits the queries in flight."""
    admission = _admission(clock, max_in_flight=2)
    with admission.acquire_now(), admission.acquire_now():
        assert admission.in_flight == 2
        with pytest.raises(Overloaded, match="2 queries"), admission.acquire_now():
            pytest.fail("a query above the limit was admitted")
    assert admission.in_flight == 0


def test_no_more_are_admitted_than_can_be_answered_in_time(clock: Clock) -> None:
    """At 10 answers a second, 40 queries are admitted within 5 s, with a margin."""
    admission = _admission(clock)
    _serve(admission, clock, together=1, seconds=0.1, turns=50)
    assert admission.limit == 40


def test_short_deadlines_are_refused_earlier(clock: Clock) -> None:
    """At 10 answers a second, 8 queries in flight leave no room for a deadline of a second."""
    admission = _admission(clock)
    _serve(admission, clock, together=1, seconds=0.1, turns=50)
    admission.in_flight = 8
    with pytest.raises(Overloaded), admission.acquire_now(1.0):
        pytest.fail("a query without enough time was admitted")
    with admission.acquire_now(2.0), admission.acquire_now(60.0), admission.acquire_now():
        assert admission.in_flight == 11
    admission.in_flight = 3
    with admission.acquire_now(0.001):
        pass


def test_few_queries_do_not_lower_the_limit(clock: Clock) -> None:
    """Occasional queries say nothing about the rate, however long the pauses are."""
    admission = _admission(clock)
    for _ in range(100):
        clock.now += 600
        _serve(admission, clock, together=1, seconds=0.02, turns=1)
    assert admission.limit == 100


def test_the_limit_follows_the_speed_of_the_model(clock: Clock) -> None:
    """The limit falls when embedders become slow, and rises when they are fast again."""
    admission = _admission(clock)
    _serve(admission, clock, together=1, seconds=0.01, turns=100)
    assert admission.limit == 100
    _serve(admission, clock, together=1, seconds=1.0, turns=200)
    assert admission.limit == 4
    _serve(admission, clock, together=1, seconds=0.01, turns=200)
    assert admission.limit == 100


def test_missed_deadlines_lower_the_limit(clock: Clock) -> None:
    """Missed deadlines lower the limit, but never so far that no answer could come."""
    admission = _admission(clock)
    _serve(admission, clock, together=1, seconds=0.01, turns=10)
    for _ in range(500):
        admission.too_late()
    assert admission.limit == 4


def test_an_error_does_not_count_as_an_answer(clock: Clock) -> None:
    """A refusal by the broker takes no time, and must not count as a fast answer."""
    admission = _admission(clock)
    _serve(admission, clock, together=1, seconds=0.5, turns=100)
    before = admission.limit
    for _ in range(100):
        with pytest.raises(Overloaded), admission.measure():
            raise Overloaded
    assert admission.limit == before


def test_retry_after_follows_the_queries_in_flight(clock: Clock) -> None:
    """Retry-After is the time of the queries in flight, spread over the callers."""
    early, late = _admission(clock), _admission(clock, chance=1.0)
    for admission in (early, late):
        _serve(admission, clock, together=1, seconds=0.2, turns=50)
        admission.in_flight = 20
    assert early.retry_after_seconds == 4
    assert late.retry_after_seconds == 6
    assert early.overloaded("full").retry_after_seconds == 4
    early.in_flight = 10_000
    assert early.retry_after_seconds == 30
    assert _admission(clock).retry_after_seconds == 1


async def test_a_reserved_slot_is_taken_when_the_image_has_arrived(clock: Clock) -> None:
    """A reserved slot goes to no other query, and its own query is not refused after its image."""
    admission = _admission(clock, max_in_flight=1)
    with admission.reserve("one") as reservation:
        with pytest.raises(Overloaded), admission.reserve("other"):
            pytest.fail("the only slot was reserved twice")
        async with admission.acquire(reservation, 0):
            assert admission.in_flight == 1
    assert admission.in_flight == 0


async def test_a_slow_image_keeps_its_slot_for_a_second(clock: Clock) -> None:
    """After a second another query gets the slot; the slow query takes the next free slot."""
    admission = _admission(clock, max_in_flight=1)
    with admission.reserve("slow") as slow:
        clock.now += 1.1
        with admission.reserve("quick") as quick:
            async with admission.acquire(quick, 0):
                waiting = asyncio.create_task(_placed(admission, slow))
                await asyncio.sleep(0)
                assert (admission.waiting, admission.in_flight) == (1, 1)
            assert await waiting == 1
    assert admission.in_flight == 0


def test_one_callers_images_reserve_at_most_a_quarter_of_the_slots(clock: Clock) -> None:
    """However many images a caller begins to send, others find three quarters of the slots."""
    admission = _admission(clock, max_in_flight=8)
    with contextlib.ExitStack() as arriving:
        for caller in ["many"] * 20 + [str(number) for number in range(6)]:
            arriving.enter_context(admission.reserve(caller))
        with pytest.raises(Overloaded), admission.reserve("late"):
            pytest.fail("a query above the limit was admitted")


async def test_waiting_queries_are_admitted_in_order_and_within_a_time(clock: Clock) -> None:
    """Each query gets the next free slot, or is refused when its time is over."""
    admission = _admission(clock, max_in_flight=1)
    async with admission.acquire(Reservation(), 0):
        first, second = (asyncio.create_task(_placed(admission, Reservation())) for _ in range(2))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await _placed(admission, Reservation(), wait_seconds=0.01)
        with pytest.raises(Overloaded):
            await _placed(admission, Reservation(waits=False))
        assert admission.waiting == 1  # at most as many wait as may be in flight
        with pytest.raises(Overloaded):
            await second
    assert await first == 1
    assert (admission.waiting, admission.in_flight) == (0, 0)


async def test_a_cancelled_wait_takes_no_slot(clock: Clock) -> None:
    """A cancelled wait is forgotten, even when its slot became free at that moment."""
    admission = _admission(clock, max_in_flight=1)
    async with admission.acquire(Reservation(), 0):
        gone = asyncio.create_task(_placed(admission, Reservation()))
        await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert (admission.waiting, admission.in_flight) == (0, 0)
    async with admission.acquire(Reservation(), 0):
        gone = asyncio.create_task(_placed(admission, Reservation()))
        await asyncio.sleep(0)
        await cancel(gone)
    assert (admission.waiting, admission.in_flight) == (0, 0)


async def _placed(admission: Admission, reservation: Reservation, wait_seconds: float = 10) -> int:
    """Return the queries in flight once the reservation's query has its slot."""
    async with admission.acquire(reservation, wait_seconds):
        return admission.in_flight


class _Entered:
    """Queries that stay in their slots until they are released, in the order of their entry."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._ends = dict[str, asyncio.Event]()
        self._tasks = list[asyncio.Task[None]]()
        self.names = list[str]()

    def ask(self, *names: str) -> None:
        """Ask for a slot each; a name such as `a1` is an image of batch `a`, `single1` is none."""
        for name in names:
            batch = "" if name.startswith("single") else name[0]
            self._ends[name] = asyncio.Event()
            self._tasks.append(asyncio.create_task(self._stay(name, Reservation(batch=batch))))

    async def _stay(self, name: str, reservation: Reservation) -> None:
        async with self._admission.acquire(reservation, 60):
            self.names.append(name)
            await self._ends[name].wait()

    async def settle(self) -> list[str]:
        """Return the names so far, after every task that can run has run."""
        for _ in range(10):
            await asyncio.sleep(0)
        return self.names

    async def release(self, *names: str) -> list[str]:
        """End these queries, and return the names of all that have entered."""
        for name in names:
            self._ends[name].set()
        return await self.settle()

    async def end(self) -> None:
        """Let every query through."""
        for end in self._ends.values():
            end.set()
        await asyncio.gather(*self._tasks)


async def test_batches_together_use_half_of_the_slots(clock: Clock) -> None:
    """Single queries enter at once beside two batches, and the batches take turns."""
    admission = _admission(clock, max_in_flight=4)
    queries = _Entered(admission)
    queries.ask("a1", "a2", "a3", "a4")
    queries.ask("b1", "b2")
    assert await queries.settle() == ["a1", "a2"]
    queries.ask("single1", "single2")
    assert await queries.settle() == ["a1", "a2", "single1", "single2"]
    assert (await queries.release("a1"))[4:] == ["a3"]
    assert (await queries.release("a2"))[5:] == ["b1"]
    assert (await queries.release("a3"))[6:] == ["a4"]
    assert (await queries.release("b1"))[7:] == ["b2"]
    await queries.end()
    assert (admission.in_flight, admission.waiting) == (0, 0)


async def test_single_queries_go_before_all_images_of_a_batch_but_one(clock: Clock) -> None:
    """Neither starves: a batch that has no slot gets the next one, and further slots are single."""
    admission = _admission(clock, max_in_flight=2)
    queries = _Entered(admission)
    queries.ask("single1", "single2")
    await queries.settle()
    queries.ask("a1", "a2", "single3", "single4")
    assert await queries.settle() == ["single1", "single2"]
    assert (await queries.release("single1"))[2:] == ["a1"]
    assert (await queries.release("single2"))[3:] == ["single3"]
    assert (await queries.release("single3"))[4:] == ["single4"]
    assert (await queries.release("a1"))[5:] == ["a2"]
    await queries.end()
    assert (admission.in_flight, admission.waiting) == (0, 0)


async def test_a_batch_gets_a_slot_however_few_there_are(clock: Clock) -> None:
    """With a single slot an image at a time is let in."""
    queries = _Entered(_admission(clock, max_in_flight=1))
    queries.ask("a1", "a2", "a3")
    assert await queries.settle() == ["a1"]
    assert await queries.release("a1") == ["a1", "a2"]
    await queries.end()
    assert queries.names == ["a1", "a2", "a3"]


async def test_an_image_of_a_batch_that_leaves_takes_no_slot(clock: Clock) -> None:
    """A wait that is cancelled, or over, is forgotten; later images get the slot."""
    admission = _admission(clock, max_in_flight=1)
    async with admission.acquire(Reservation(batch="a"), 0):
        gone = asyncio.create_task(_placed(admission, Reservation(batch="b")))
        await asyncio.sleep(0)
        await cancel(gone)
        with pytest.raises(Overloaded):
            await _placed(admission, Reservation(batch="b"), wait_seconds=0.01)
        waiting = asyncio.create_task(_placed(admission, Reservation(batch="b")))
        await asyncio.sleep(0)
        assert admission.waiting == 1
    assert await waiting == 1
    assert (admission.in_flight, admission.waiting) == (0, 0)


async def test_a_batch_waits_where_searches_are_slow() -> None:
    """After slow searches few are let in at once: the images of a batch wait, none is refused."""
    limits = QueryLimits(max_in_flight=256, deadline_seconds=5)
    control = AdmissionControl(limits, require_open=lambda _: None, on_admission=lambda _: None)
    for _ in range(100):
        control.searching.too_late()
    end = asyncio.Event()

    async def search(batch: str) -> None:
        async with control.admit_search(batch, 60):
            await end.wait()

    images = [asyncio.create_task(search("batch")) for _ in range(16)]
    while control.searching.waiting < 14:
        await asyncio.sleep(0)
    assert control.searching.in_flight == 2
    singles = [asyncio.create_task(search("")) for _ in range(2)]
    while control.searching.in_flight < 4:
        await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await search("")
    end.set()
    await asyncio.gather(*images, *singles)
    assert (control.searching.in_flight, control.searching.waiting) == (0, 0)


def test_a_batch_has_the_time_of_a_query_for_each_four_images() -> None:
    """At most the time of the largest batch, and no more than its caller waits."""

    def seconds(images: int, patience: float | None = None) -> float:
        now = time.monotonic()
        until = None if patience is None else now + patience
        return batch_deadline(images, until, 5.0, 16.0) - now

    assert [round(seconds(images), 1) for images in (1, 4, 5, 16, 32)] == [5, 5, 10, 16, 16]
    assert round(seconds(16, 7.0), 1) == 7
    assert round(batch_deadline(16, None, 30.0, 16.0) - time.monotonic(), 1) == 30

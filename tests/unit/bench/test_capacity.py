"""The search for capacity finds the rate at which a simulated target stops meeting the goal."""

from __future__ import annotations

import math

import pytest

from services.bench.capacity import (
    Capacity,
    Goal,
    Step,
    find_capacity,
    find_ceiling,
    step_seconds,
)
from services.bench.load.meter import Measured
from services.bench.run import Run, Sample

GOAL = Goal(p99_seconds=0.5)


def run_of(latency_seconds: float, *, served: int = 1000, lost: int = 0) -> Run:
    """Return a run of served requests of one latency, and of requests that were refused."""
    samples = [
        *[Sample(0.0, latency_seconds, "200")] * served,
        *[Sample(0.0, 0.001, "503 overloaded")] * lost,
    ]
    return Run(seconds=10.0, samples=samples, client_cpu_seconds=0.1, rate=100.0)


class MadeUp:
    """Answers in time up to a rate; the first `hiccups` steps fail at any rate."""

    def __init__(self, capacity: float, hiccups: int = 0) -> None:
        self.capacity = capacity
        self.hiccups = hiccups
        self.rates: list[float] = []
        self.reported: list[Step] = []

    async def measure(self, rate: float, seconds: float) -> Measured:
        """Measure a step."""
        assert seconds == step_seconds(rate)
        self.rates.append(rate)
        slow = rate > self.capacity or len(self.rates) <= self.hiccups
        return Measured(run_of(2.0 if slow else 0.1))

    async def search(self, ceiling: float) -> Capacity:
        """Run the whole search."""
        return await find_capacity(self.measure, ceiling, GOAL, self.reported.append)


@pytest.mark.parametrize("capacity", [30.0, 77.7, 99.0, 130.0])
async def test_the_rate_found_is_the_highest_to_five_percent(capacity: float) -> None:
    """The rate that is found is met, and at most 5 % too low, wherever it lies."""
    target = MadeUp(capacity)
    found = await target.search(100.0)
    assert capacity / 1.06 <= found.rate <= capacity
    assert found.best is not None
    assert found.steps == target.reported


async def test_a_step_that_fails_once_is_tried_again() -> None:
    """A pause of the machine costs one more step, and does not change the result."""
    target = MadeUp(85.0, hiccups=1)
    found = await target.search(100.0)
    assert target.rates[:2] == [80.0, 80.0]
    assert [step.fault is None for step in found.steps[:2]] == [False, True]
    assert found.rate >= 80.0


async def test_a_step_that_fails_twice_is_believed() -> None:
    """No rate is measured three times in succession."""
    target = MadeUp(60.0)
    await target.search(100.0)
    assert all(target.rates.count(rate) <= 2 for rate in target.rates)
    assert target.rates.count(80.0) == 2


async def test_a_target_that_is_always_slow_has_no_capacity() -> None:
    """The search ends at a twentieth of the ceiling."""
    target = MadeUp(0.0)
    found = await target.search(100.0)
    assert found.rate == 0
    assert found.best is None
    assert min(target.rates) >= 5.0


async def test_a_target_that_serves_nobody_is_not_searched() -> None:
    """Without a ceiling the search has no first rate."""
    target = MadeUp(100.0)
    assert (await target.search(0.0)).rate == 0
    assert target.rates == []


async def test_rates_far_over_the_ceiling_are_not_tried() -> None:
    """The search ends at rates above those that clients reached."""
    target = MadeUp(math.inf)
    found = await target.search(100.0)
    assert 100 < found.rate == max(target.rates) <= 160


async def test_more_clients_are_tried_as_long_as_they_bring_more() -> None:
    """The search stops at 95 after 90: less than a tenth more, so the highest is the ceiling."""
    asked: list[int] = []

    async def measure(clients: int) -> Measured:
        asked.append(clients)
        return Measured(run_of(0.1, served={8: 400, 32: 900, 128: 950}[clients]))

    assert await find_ceiling(measure) == 95.0
    assert asked == [8, 32, 128]


@pytest.mark.parametrize(
    ("run", "fault"),
    [
        (run_of(0.5), None),
        (run_of(0.501), "p99 0.501 s is over 0.5 s"),
        (run_of(0.1, served=1999, lost=1), None),
        (run_of(0.1, served=999, lost=1), "0.1% not served (503 overloaded)"),
        (run_of(0.1, served=0, lost=5), "100.0% not served (503 overloaded)"),
        (run_of(0.1, served=0), "100.0% not served (no request was sent)"),
    ],
)
def test_the_goal_is_latency_and_errors(run: Run, fault: str | None) -> None:
    """A run must meet both; the reason names the one that failed."""
    assert GOAL.fault(run) == fault


def test_a_generator_that_is_late_itself_is_named() -> None:
    """The fault names the generator when the generator itself was late."""
    late = Run(10.0, run_of(2.0).samples, 0.1, rate=100.0, behind_seconds=0.3)
    assert "generator was late itself" in str(GOAL.fault(late))


@pytest.mark.parametrize(("rate", "seconds"), [(1000, 5), (100, 10), (20, 50), (2, 60)])
def test_a_step_lasts_for_a_thousand_requests(rate: float, seconds: float) -> None:
    """A step takes 5 to 60 seconds."""
    assert step_seconds(rate) == seconds

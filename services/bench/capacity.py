"""Finds the highest rate that still meets a goal: a probe for the ceiling, then bisection."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from services.bench.load.meter import MeasureClients, Measured, MeasureRate
from services.bench.run import Run

SAMPLES: Final = 1000
"""Requests in a step: ten of them are beyond the 99th percentile."""

_MIN_STEP_SECONDS: Final = 5.0
_MAX_STEP_SECONDS: Final = 60.0
PROBE_CLIENTS: Final = (8, 32, 128, 512)
_PROBE_GAIN: Final = 1.1
_FIRST: Final = 0.8
_UP: Final = 1.2
_DOWN: Final = 0.7
_MAX_SHARE: Final = 1.6
_MIN_SHARE: Final = 0.05
_TOLERANCE: Final = 1.05
_ATTEMPTS: Final = 2

_Meets = Callable[[float], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Goal:
    """Defines the goal of a rate.

    Attributes:
        p99_seconds: the maximum 99th percentile of the latency.
        error_share: the share of unserved requests must be lower than this.
    """

    p99_seconds: float
    error_share: float = 0.001

    def fault(self, run: Run) -> str | None:
        """Return why a run misses the goal; None when it meets the goal."""
        if run.error_share >= self.error_share:
            worst = next((code for code in run.by_code if code != "200"), "no request was sent")
            return f"{run.error_share:.1%} not served ({worst})"
        if not run.p99 <= self.p99_seconds:
            late = run.behind_seconds > self.p99_seconds / 2
            why = "; the generator was late itself: run it elsewhere" if late else ""
            return f"p99 {run.p99:.3f} s is over {self.p99_seconds:g} s{why}"
        return None


@dataclass(frozen=True, slots=True)
class Step:
    """Holds a trial of a rate; `fault` is None when the goal was met."""

    rate: float
    measured: Measured
    fault: str | None


@dataclass(frozen=True, slots=True)
class Capacity:
    """Holds the result of the search.

    Attributes:
        goal: the goal of all steps.
        ceiling: images per second with a growing number of clients.
        rate: the highest rate that met the goal; 0 without one.
        steps: every trial.
    """

    goal: Goal
    ceiling: float
    rate: float
    steps: Sequence[Step] = field(default_factory=list)

    @property
    def best(self) -> Measured | None:
        """The last run at `rate` that met the goal."""
        met = [one for one in self.steps if one.fault is None and one.rate == self.rate]
        return met[-1].measured if met else None


def step_seconds(rate: float) -> float:
    """Return the duration of a step: long enough for SAMPLES requests, from 5 to 60 s."""
    return min(_MAX_STEP_SECONDS, max(_MIN_STEP_SECONDS, SAMPLES / rate))


async def find_ceiling(
    measure: MeasureClients, probe_clients: Sequence[int] = PROBE_CLIENTS
) -> float:
    """Add clients until the served images per second grow by less than a tenth; return them."""
    ceiling = 0.0
    for clients in probe_clients:
        goodput = (await measure(clients)).run.goodput
        if goodput < ceiling * _PROBE_GAIN:
            return max(ceiling, goodput)
        ceiling = goodput
    return ceiling


async def find_capacity(
    measure: MeasureRate,
    ceiling: float,
    goal: Goal,
    on_step: Callable[[Step], None],
    seconds_of: Callable[[float], float] = step_seconds,
) -> Capacity:
    """Find the highest rate that meets the goal, to about 5 %.

    A step that fails is repeated once, since a pause of a shared machine may be the cause.

    Args:
        measure: measures a rate for some seconds.
        ceiling: the images per second to start from.
        goal: what a rate must meet.
        on_step: gets each trial.
        seconds_of: returns the duration of a step at a rate.
    """
    steps: list[Step] = []

    async def meets(rate: float) -> bool:
        for _ in range(_ATTEMPTS):
            measured = await measure(rate, seconds_of(rate))
            steps.append(Step(rate, measured, goal.fault(measured.run)))
            on_step(steps[-1])
            if steps[-1].fault is None:
                return True
        return False

    rate = 0.0
    if ceiling > 0:
        low, high = await _bracket(meets, ceiling)
        rate = await _bisect(meets, low, high)
    return Capacity(goal, ceiling, rate, steps)


async def _bracket(meets: _Meets, ceiling: float) -> tuple[float, float]:
    """Return a rate that meets the goal (0 without one), and one that doesn't."""
    rate = rounded(_FIRST * ceiling)
    low = 0.0
    while await meets(rate):
        low = rate
        rate = rounded(rate * _UP)
        if rate > _MAX_SHARE * ceiling:
            return low, low  # far over what clients got: their number was the limit, not the target
    high = rate
    while not low and (rate := rounded(rate * _DOWN)) >= _MIN_SHARE * ceiling:
        if await meets(rate):
            low = rate
        else:
            high = rate
    return low, high


async def _bisect(meets: _Meets, low: float, high: float) -> float:
    while low and high / low > _TOLERANCE:
        middle = rounded(math.sqrt(low * high))
        if not low < middle < high:
            break
        if await meets(middle):
            low = middle
        else:
            high = middle
    return low


def rounded(rate: float) -> float:
    """Round to three digits, the precision of a run."""
    return float(f"{rate:.3g}")

"""Runs the rounds, in each of which every system has its turn beside the limit."""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.display import Display
from tests.benchmarks.serving import children, limit
from tests.benchmarks.serving.client import Client, Point
from tests.benchmarks.serving.systems import Bench, Running, System

CONCURRENCIES: Final = (1, 8, 32, 64)
OVERLOAD: Final = 512
AFTERWARDS: Final = 8

_WARM_SECONDS: Final = 1.0
_FIRST_WARM_SECONDS: Final = 2.0
_OVERLOAD_SECONDS: Final = 6.0
_OVERLOAD_WARM_SECONDS: Final = 2.0
_LIMIT_EVERY: Final = 5

Turn = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Schedule:
    """The points to measure, and their durations."""

    rounds: int
    seconds: float
    concurrencies: Sequence[int]
    overload: bool


def turns(
    schedule: Schedule, systems: Sequence[System], bench: Bench, client: Client, display: Display
) -> Iterator[tuple[System, Turn]]:
    """Yield each system's turns as they are measured; the limit is measured again for every few."""
    run = time.strftime("%Y%m%dT%H%M%S")
    display.expect(schedule.rounds * len(systems))
    for number in range(1, schedule.rounds + 1):
        # The order changes, so that effects of a system on the next favour none.
        shift = number * len(systems) // schedule.rounds
        order = (*systems[shift:], *systems[:shift])
        limits: dict[str, Any] = {}
        for place, system in enumerate(order):
            if place % _LIMIT_EVERY == 0:
                display.at(f"round {number}: the limit, without a server")
                limits = _limits(schedule, bench)
            display.at(f"round {number}: {system.title}")
            turn = _turn(schedule, system, bench, client)
            yield system, {"round": f"{run}-{number}", "limit": limits, **turn}
            display.done(_line(number, system, turn, limits))


def _limits(schedule: Schedule, bench: Bench) -> dict[str, Any]:
    cores = os.cpu_count() or 1
    return {
        "cores": limit.measure(cores, schedule.seconds, bench.index),
        "one": limit.measure(1, schedule.seconds / 2, bench.index),
    }


def _turn(schedule: Schedule, system: System, bench: Bench, client: Client) -> Turn:
    with tempfile.TemporaryDirectory(prefix="serving-") as logs:
        own = replace(bench, logs=Path(logs))
        began = time.perf_counter()
        with system.start(own) as running:
            start_seconds = time.perf_counter() - began
            children.settle(running.pids)
            concurrencies = [
                one
                for one in schedule.concurrencies
                if not system.concurrencies or one in system.concurrencies
            ]
            points = {
                str(concurrency): client.measure(
                    running, _point(schedule, system, concurrency, first=place == 0)
                )
                for place, concurrency in enumerate(concurrencies)
            }
            overload = (
                _overload(schedule, running, client)
                if schedule.overload and system.overloaded
                else {}
            )
            return {
                "start_seconds": start_seconds,
                "ready_seconds": running.ready_seconds,
                "points": points,
                **overload,
            }


def _point(schedule: Schedule, system: System, concurrency: int, *, first: bool) -> Point:
    warm = _FIRST_WARM_SECONDS if first else _WARM_SECONDS
    return Point(concurrency, system.longer * schedule.seconds, system.longer * warm)


def _overload(schedule: Schedule, running: Running, client: Client) -> Turn:
    before = client.measure(running, Point(AFTERWARDS, schedule.seconds, _WARM_SECONDS))
    overload = client.measure(running, Point(OVERLOAD, _OVERLOAD_SECONDS, _OVERLOAD_WARM_SECONDS))
    # At once: the point measures the recovery.
    after = client.measure(running, Point(AFTERWARDS, schedule.seconds, 0))
    storm = client.measure(
        running, Point(OVERLOAD, _OVERLOAD_SECONDS, _OVERLOAD_WARM_SECONDS, patient=False)
    )
    return {"before": before, "overload": overload, "afterwards": after, "storm": storm}


def _line(number: int, system: System, turn: Turn, limits: dict[str, Any]) -> str:
    measured = itertools.chain(turn["points"].values(), [turn.get("overload")])
    rates = ", ".join(
        f"{point['goodput']:.1f} at {point['concurrency']}" for point in measured if point
    )
    most = limits["cores"]["images_per_second"]
    return f"{number}  {system.title}: {rates} images/s (limit {most:.1f})"

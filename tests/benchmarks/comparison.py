"""Compares all engines on a set: builds in sequence, measures speeds in turn."""

from __future__ import annotations

import time
from collections.abc import Sequence

from threadpoolctl import threadpool_limits

from tests.benchmarks.building import Built, build, forget
from tests.benchmarks.datasets import Dataset
from tests.benchmarks.display import Display
from tests.benchmarks.engines import ENGINES, SKIPPED
from tests.benchmarks.measuring import (
    Point,
    Tried,
    Truth,
    find_efforts,
    measure_in_turn,
    rounds_of,
)
from tests.benchmarks.results import Figures, machine


def compare(dataset: Dataset, display: Display) -> Figures:
    """Return every figure of the set."""
    name = dataset.spec.name
    engines = [engine for engine in ENGINES if (name, engine) not in SKIPPED]
    display.expect(2 * len(engines) + rounds_of() + 1)
    display.at(f"{name}: exact answers")
    truth = Truth(dataset.vectors, dataset.queries)
    display.done()
    points: list[Point] = []
    tables: dict[str, Figures] = {}
    for engine in engines:
        display.at(f"{name}: building {ENGINES[engine].title}")
        built = build(engine, dataset)
        display.done(f"{name}, {ENGINES[engine].title}: built in {built.seconds:.1f} s")
        display.at(f"{name}: recall of {ENGINES[engine].title}")
        with threadpool_limits(1):
            some, tried = find_efforts(engine, built.opened, truth)
        display.done()
        points += some
        tables[engine] = _about(built, tried)
    display.at(f"{name}: speeds in turn")
    measure_in_turn(points, dataset.queries, each=display.done)
    for engine, table in tables.items():
        table["points"] = [point.figures() for point in points if point.engine == engine]
    forget(dataset)
    return {
        "title": dataset.title,
        "count": len(dataset.vectors),
        "dimension": dataset.vectors.shape[1],
        "queries": len(dataset.queries),
        "measured": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "engines": tables,
        "skipped": {engine: why for (of, engine), why in SKIPPED.items() if of == name},
    }


def _about(built: Built, tried: Sequence[Tried]) -> Figures:
    return {
        "note": built.opened.note,
        "build_seconds": built.seconds,
        "build_peak_anonymous_bytes": built.ran.peak_anonymous_bytes,
        "build_peak_resident_bytes": built.ran.peak_resident_bytes,
        "bytes": built.opened.bytes,
        "own_bytes": built.own_bytes,
        "tried": [
            {
                "effort": one.effort,
                "recall": one.recall,
                "queries_per_second": one.queries_per_second,
            }
            for one in tried
        ],
    }

"""Measures builds and queries as a collection grows: growing parts of the same set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.benchmarks.building import Built, build, forget
from tests.benchmarks.datasets import Dataset
from tests.benchmarks.display import Display
from tests.benchmarks.measuring import Point, Truth, find_efforts, measure_in_turn, rounds_of
from tests.benchmarks.results import Figures

SIZES: Final = (10_000, 30_000, 100_000, 300_000, 1_000_000)
SET: Final = "1m-256"
ENGINE: Final = "simile-0.99"


def measure(dataset: Dataset, sizes: Sequence[int], display: Display) -> list[Figures]:
    """Build and search every size; measure the speeds in turn."""
    sizes = [size for size in sizes if size <= len(dataset.vectors)]
    display.expect(2 * len(sizes) + rounds_of())
    rows = []
    for size in sizes:
        display.at(f"growth: building {size:,}")
        part = dataset.first(size)
        built = build(ENGINE, part)
        display.done(f"growth {size:,}: built in {built.seconds:.1f} s ({built.opened.note})")
        display.at(f"growth: recall of {size:,}")
        points, _ = find_efforts(ENGINE, built.opened, Truth(part.vectors, part.queries))
        display.done()
        rows.append((size, built, points[0]))
    display.at("growth: speeds in turn")
    measure_in_turn([point for *_, point in rows], dataset.queries, each=display.done)
    for size in sizes:
        forget(dataset.first(size))
    return [_row(size, built, point) for size, built, point in rows]


def _row(size: int, built: Built, point: Point) -> Figures:
    return {
        "count": size,
        "plan": built.opened.note,
        "build_seconds": built.seconds,
        "build_peak_anonymous_bytes": built.ran.peak_anonymous_bytes,
        "build_peak_resident_bytes": built.ran.peak_resident_bytes,
        "bytes": built.opened.bytes,
        "own_bytes": built.own_bytes,
        **point.figures(),
    }

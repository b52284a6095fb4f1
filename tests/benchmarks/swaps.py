"""Swaps versions under load, large ones and a thousand: `python -m tests.benchmarks.swaps`.

Writes swaps.json and a section of benchmarks.md.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import numpy as np
import structlog

from services.searcher.index.scan import Vectors
from services.shared.volume.volume import Volume
from tests.benchmarks import memory, results, swap_report
from tests.benchmarks.datasets import CACHE, Mixture
from tests.benchmarks.display import Display, shown
from tests.benchmarks.results import Figures
from tests.benchmarks.swap_bench import Answer, Bench, Load, between, publish, running

_CLIENTS: Final = 4
_PAUSE_SECONDS: Final = 0.004
_QUIET_PAUSE_SECONDS: Final = 0.05
_POLL_SECONDS: Final = 0.05
_FAST_POLL_SECONDS: Final = 0.001
_WARM_SECONDS: Final = 3.0
_WARM_SWAPS: Final = 20
_SMALL: Final = (500, 128)
_QUERIES: Final = 500


@click.command()
@click.option("--items", default=60_000, show_default=True, help="Items of a large version.")
@click.option("--dimension", default=1280, show_default=True, help="Of the large versions.")
@click.option("--seconds", default=30.0, show_default=True, help="Steady load before any swap.")
@click.option("--large", default=60, show_default=True, help="Swaps of large versions.")
@click.option("--small", default=1000, show_default=True, help="Swaps of small versions.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("docs"),
    show_default=True,
    help="The folder of benchmarks.md and benchmarks/.",
)
def main(items: int, dimension: int, seconds: float, large: int, small: int, out: Path) -> None:
    """Swap index versions under load."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    CACHE.mkdir(parents=True, exist_ok=True)
    with shown() as display, tempfile.TemporaryDirectory(dir=CACHE) as root:
        display.expect(4 + 2 * large + small + _WARM_SWAPS)
        shape, home = (items, dimension), Path(root) / "large"
        versions = _publish_two(home, shape, display)
        busy = Clients(_CLIENTS, _PAUSE_SECONDS)
        quiet = Clients(1, _QUIET_PAUSE_SECONDS)
        figures = {
            "machine": results.machine(),
            "measured": time.strftime("%Y-%m-%d"),
            "clients": busy.count,
            "pause_seconds": busy.pause_seconds,
            "quiet_pause_seconds": quiet.pause_seconds,
            "large": _swap_large(home, versions, shape, busy, seconds, large, display),
            "quiet": _swap_large(home, versions, shape, quiet, seconds, large, display),
            "small": _swap_small(Path(root) / "small", small, display),
        }
    results.save(out / "benchmarks" / "swaps.json", figures)
    results.write_section(out / results.PAGE, "swaps", swap_report.written(figures))
    click.echo(f"wrote {out / results.PAGE} and {out / 'benchmarks' / 'swaps.json'}")


def _publish_two(root: Path, shape: tuple[int, int], display: Display) -> Sequence[str]:
    """Publish two versions of different vectors; return their names."""
    versions = []
    for number in (1, 2):
        display.at(f"building version {number} of {shape[0]:,} x {shape[1]:,}")
        versions.append(
            publish(Volume(root), "swapped", *shape, number=number, method="reduced-annoy")
        )
        display.done()
    return versions


def _queries(dimension: int) -> Vectors:
    return Mixture("hard", dimension).draw(_QUERIES, 99, 0)


@dataclass(frozen=True, slots=True)
class Clients:
    """A number of clients, and their pause after each answer."""

    count: int
    pause_seconds: float


def _swap_large(
    root: Path,
    versions: Sequence[str],
    shape: tuple[int, int],
    clients: Clients,
    seconds: float,
    swaps: int,
    display: Display,
) -> Figures:
    """Measure a steady load without swaps, then with at most one swap per second."""

    async def measure() -> Figures:
        async with running(root, "swapped", _POLL_SECONDS) as bench:
            load = Load(bench, _queries(shape[1]), clients.count, clients.pause_seconds)
            async with load.applied():
                await asyncio.sleep(_WARM_SECONDS)
                display.at("steady load")
                steady = await _steady(bench, load, seconds)
                display.at("swapping large versions")
                swapping = await _swap_by_the_second(bench, load, versions, swaps, display)
        ratio = swapping["after"]["p99_ms"] / steady["p99_ms"]
        return {
            "count": shape[0],
            "dimension": shape[1],
            "steady": steady,
            "swapping": swapping,
            "p99_after_over_steady": ratio,
        }

    return asyncio.run(measure())


async def _steady(bench: Bench, load: Load, seconds: float) -> Figures:
    load.stalls.clear()
    started = time.perf_counter()
    await asyncio.sleep(seconds)
    answers = between(bench.answers, started, time.perf_counter())
    return {
        **_times(answers),
        "queries_per_second": len(answers) / seconds,
        "longest_stall_ms": 1000 * max(load.stalls),
    }


async def _swap_by_the_second(
    bench: Bench, load: Load, versions: Sequence[str], swaps: int, display: Display
) -> Figures:
    """after: queries in the second after each swap. opening: while the new version was verified."""
    load.stalls.clear()
    after: list[Answer] = []
    opening: list[Answer] = []
    opening_seconds = []
    first = len(bench.answers)
    for number in range(swaps):
        started = time.perf_counter()
        swapped = await bench.swap(versions[number % len(versions)])
        opening_seconds.append(swapped - started)
        await asyncio.sleep(1)
        opening += between(bench.answers[first:], started, swapped)
        after += between(bench.answers[first:], swapped, swapped + 1)
        display.done()
    return {
        "swaps": swaps,
        "after": _times(after),
        "opening": _times(opening),
        "opening_seconds": float(np.median(opening_seconds)),
        "all": _times(bench.answers[first:]),
        "longest_stall_ms": 1000 * max(load.stalls),
        **_faults(bench.answers[first:]),
    }


def _swap_small(root: Path, swaps: int, display: Display) -> Figures:
    """Swap as fast as the searcher follows; measure the leftovers."""
    versions = _publish_two(root, _SMALL, display)

    async def measure() -> Figures:
        async with running(root, "swapped", _FAST_POLL_SECONDS) as bench:
            load = Load(bench, _queries(_SMALL[1]), _CLIENTS, _PAUSE_SECONDS)
            async with load.applied():
                display.at("swapping small versions")
                # Preparation activates the second version, so the first swap goes to the first.
                for number in range(_WARM_SWAPS):
                    await bench.swap(versions[number % len(versions)])
                    display.done()
                before, first = _held(root), len(bench.answers)
                started = time.perf_counter()
                for number in range(swaps):
                    await bench.swap(versions[number % len(versions)])
                    display.done()
                seconds = time.perf_counter() - started
                after = _held(root)
            answers = bench.answers[first:]
        return {
            "swaps": swaps,
            "seconds": seconds,
            "before": before,
            "after": after,
            **_faults(answers),
            **_times(answers),
        }

    return asyncio.run(measure())


def _held(root: Path) -> Figures:
    gc.collect()
    return {
        "open_files": memory.open_files(),
        "anonymous_bytes": memory.status_bytes("RssAnon"),
        "mapped_bytes": memory.mapped_file_bytes(root),
    }


def _faults(answers: Sequence[Answer]) -> Figures:
    return {
        "answers": len(answers),
        "errors": sum(not answer.version for answer in answers),
        "mixed": sum(answer.mixed for answer in answers),
    }


def _times(answers: Sequence[Answer]) -> Figures:
    milliseconds = [1000 * answer.seconds for answer in answers]
    return {
        "asked": len(answers),
        "p50_ms": float(np.percentile(milliseconds, 50)) if milliseconds else None,
        "p99_ms": float(np.percentile(milliseconds, 99)) if milliseconds else None,
    }


if __name__ == "__main__":
    main()

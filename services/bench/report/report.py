"""Writes the results as one HTML file without scripts or other files."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.table import Table
from rich.text import Text

from services.bench.load.meter import Measured
from services.bench.report import plots, tables
from services.bench.results import Results
from services.bench.run import Kind, Run, kind_of

_TEMPLATE: Final = "report.html"
_MAX_CHARTED: Final = 12
_FEW: Final = 0.01
"""Runs that serve fewer than 99 of 100 requests are no representative examples."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing with its description for screen readers. source: a data URI."""

    title: str
    alt: str
    source: str


@dataclass(frozen=True, slots=True)
class Cells:
    """Holds the texts of a table."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Share:
    """Holds a part of a bar."""

    code: str
    count: int
    percent: float
    kind: Kind


def write_report(results: Results, out: Path) -> None:
    """Write the page. Raises OSError."""
    environment = Environment(
        loader=PackageLoader("services.bench.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    measured = results.measured
    page = environment.get_template(_TEMPLATE).render(
        facts=results.facts,
        headline=_headline(results),
        runs=_cells(tables.of_runs(measured)),
        answers=[(one.run.name, _shares(one.run)) for one in _charted(measured)],
        codes=_cells(tables.of_codes(measured)),
        stages=_cells(tables.of_stages(measured)),
        cpu=_cells(tables.of_cpu(measured)),
        notes=list(tables.notes(measured)),
        charts={chart.title: chart for chart in _charts(results)},
        capacity=results.capacity,
        verdict=tables.verdict(results.capacity) if results.capacity is not None else "",
        advice=results.advice,
        milliseconds=tables.milliseconds,
    )
    out.write_text(page, encoding="utf-8")


def _headline(results: Results) -> Sequence[tuple[str, str, str]]:
    """Return the main figures as number, unit and description."""
    if results.capacity is not None and results.capacity.best is not None:
        chosen = results.capacity.best
        first = (f"{results.capacity.rate:g}", "images/s", "capacity within the target")
    else:
        kept = [one for one in results.measured if one.run.error_share < _FEW]
        chosen = max(kept or results.measured, key=lambda one: one.run.goodput)
        first = (f"{chosen.run.goodput:,.1f}", "images/s", f"most served, with {chosen.run.name}")
    run = chosen.run
    return [
        first,
        (tables.milliseconds(run.p50) or "-", "ms", f"median latency, {run.name}"),
        (tables.milliseconds(run.p99) or "-", "ms", f"99th percentile, {run.name}"),
        (f"{run.error_share:.2%}", "", f"not served, {run.name}"),
    ]


def _charts(results: Results) -> Iterator[Chart]:
    measured = _charted(results.measured)
    runs = [one.run for one in measured]
    served = [run for run in runs if len(run.served)]
    if len(runs) > 1:
        yield _chart("Throughput", "images served a second by run", plots.throughput(runs))
    if len(served) > 1:
        yield _chart("Latency by load", "latency percentiles by run", plots.percentiles(served))
    if served:
        yield _chart(
            "Distribution", "share served within a time, by run", plots.distribution(served)
        )
    yield _chart("Over time", "latency of each request by when it began", plots.over_time(runs))
    yield from _bars(measured)
    if results.capacity is not None and results.capacity.steps:
        yield _chart("Search", "p99 by the offered rate", plots.search(results.capacity))


def _charted(measured: Sequence[Measured]) -> Sequence[Measured]:
    """Return the last run of each load, ordered by load, and at most _MAX_CHARTED."""
    last = {one.run.name: one for one in measured}
    return sorted(list(last.values())[-_MAX_CHARTED:], key=_load)


def _load(measured: Measured) -> tuple[float, float]:
    """Order clients before rates."""
    return measured.run.rate or 0.0, measured.run.concurrency or 0


def _bars(measured: Sequence[Measured]) -> Iterator[Chart]:
    stages = {one.run.name: _parts(one) for one in measured if one.run.stage_medians()}
    if stages:
        svg = plots.stacked(stages, "sum of the stages' medians, ms")
        yield _chart("Stages", "median time of each stage by run", svg)
    cpu = {one.run.name: one.cpu_seconds_per_image for one in measured}
    if any(cpu.values()):
        svg = plots.stacked(cpu, "CPU for one served image, ms")
        yield _chart("CPU", "CPU for one image by process", svg)
    spent = [(one.run.name, one.spent.batches) for one in measured if one.spent is not None]
    filled = [(name, batches) for name, batches in spent if batches.count]
    if filled:
        yield _chart("Batches", "images in a batch by run", plots.batches(filled))


def _parts(measured: Measured) -> dict[str, float]:
    """Return the stages' medians without `total`."""
    medians = measured.run.stage_medians()
    return {stage: seconds for stage, seconds in medians.items() if stage != "total"}


def _chart(title: str, alt: str, svg: str) -> Chart:
    """Return a chart as data URI, since the ids of inline drawings would collide."""
    encoded = base64.b64encode(svg.encode()).decode()
    return Chart(title, alt, f"data:image/svg+xml;base64,{encoded}")


def _shares(run: Run) -> Sequence[Share]:
    total = max(1, len(run.samples))
    shares = [
        Share(code, count, 100 * count / total, kind_of(code))
        for code, count in run.by_code.items()
    ]
    return sorted(shares, key=lambda one: one.kind != "served")


def _cells(table: Table) -> Cells:
    """Convert a terminal's table, so that both have the same figures."""
    columns = [[_plain(cell) for cell in column.cells] for column in table.columns]
    heads = [_plain(column.header) for column in table.columns]
    return Cells(heads, list(zip(*columns, strict=True)))


def _plain(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)

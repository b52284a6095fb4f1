"""Prints the results of `simile bench` as tables for 80 columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from services.bench.capacity import Capacity, Step
from services.bench.load.meter import Measured
from services.bench.results import PERCENTILES, Results
from services.bench.run import Run, percentile
from services.cli.tables import add_row, cell, new_table

_LATE_SECONDS: Final = 0.05
"""A note is printed when the generator is later than this with a request."""


def show(results: Results, console: Console) -> None:
    """Print all results."""
    facts = results.facts
    console.print(
        cell(f"{facts.collection} {facts.index_version}: {facts.count:,} images, {facts.model_id}")
    )
    console.print(of_runs(results.measured))
    for table in (
        of_codes(results.measured),
        of_stages(results.measured),
        of_cpu(results.measured),
    ):
        if table.row_count:
            console.print(table)
    for line in notes(results.measured):
        console.print(cell(f"note: {line}"), style="yellow")
    if results.capacity is not None:
        console.print(Text(verdict(results.capacity)), style="bold")
    for one in results.advice:
        console.print(Text.assemble((f"{one.setting}: {one.value}", "bold"), f"\n  {one.reason}"))


def of_runs(measured: Sequence[Measured]) -> Table:
    """Return a table of the runs: served images, latencies, and unserved requests if any."""
    lost = any(one.run.error_share for one in measured)
    table = _table("load", "images/s", *(f"p{percent:g} ms" for percent in PERCENTILES), "max ms",
                   *(["not served"] if lost else []))  # fmt: skip
    for run in (one.run for one in measured):
        add_row(
            table,
            run.name,
            f"{run.goodput:,.1f}",
            *(milliseconds(run.percentile(percent)) for percent in (*PERCENTILES, 100)),
            *([share(run.error_share)] if lost else []),
        )
    return table


def of_codes(measured: Sequence[Measured]) -> Table:
    """Return a table of the codes and their latencies; empty when all requests were served."""
    table = _table("load", "answers", "share", "p50 ms", "p99 ms", Column("code", no_wrap=True))
    runs = [one.run for one in measured]
    if any(run.error_share for run in runs):
        for run in runs:
            for code, count in run.by_code.items():
                latencies = run.latencies_of(code)
                add_row(
                    table,
                    run.name,
                    f"{count:,}",
                    share(count / len(run.samples)),
                    milliseconds(percentile(latencies, 50)),
                    milliseconds(percentile(latencies, 99)),
                    code,
                )
    return table


def of_stages(measured: Sequence[Measured]) -> Table:
    """Return a table of the median time of each stage; empty without stages."""
    medians = [one.run.stage_medians() for one in measured]
    stages = list(dict.fromkeys(stage for median in medians for stage in median))
    table = _table("median ms", *stages)
    if stages:
        for one, median in zip(measured, medians, strict=True):
            cells = (milliseconds(median.get(stage, math.nan)) for stage in stages)
            add_row(table, one.run.name, *cells)
    return table


def of_cpu(measured: Sequence[Measured]) -> Table:
    """Return a table of the CPU for a served image by service, and of the batches."""
    by_service = [_by_service(one.cpu_seconds_per_image) for one in measured]
    services = list(dict.fromkeys(name for cpu in by_service for name in cpu))
    fills = [one.spent.batches.mean_images if one.spent else math.nan for one in measured]
    filled = not all(map(math.isnan, fills))
    table = _table("CPU ms/image", *services, "this generator",
                   *(["images a batch"] if filled else []))  # fmt: skip
    for one, cpu, fill in zip(measured, by_service, fills, strict=True):
        add_row(
            table,
            one.run.name,
            *(milliseconds(cpu.get(name, math.nan)) for name in services),
            milliseconds(one.run.client_cpu_seconds_per_request),
            *(["" if math.isnan(fill) else f"{fill:.1f}"] if filled else []),
        )
    return table


def _by_service(by_process: Mapping[str, float]) -> Mapping[str, float]:
    """Add up the replicas of a service: `embedder a:9090` and `embedder b:9090`."""
    found: dict[str, float] = {}
    for process, seconds in by_process.items():
        service = process.rpartition(" ")[0] or process
        found[service] = found.get(service, 0.0) + seconds
    return found


def notes(measured: Sequence[Measured]) -> Iterator[str]:
    """Yield notes on what distorts the results."""
    runs = [one.run for one in measured]
    if late := [run for run in runs if run.behind_seconds > _LATE_SECONDS]:
        worst = max(run.behind_seconds for run in late)
        yield (
            f"the generator itself was up to {worst:.2f} s late with a request ({_names(late)}): "
            "its machine is too busy, so run it on another one"
        )
    if full := [run for run in runs if run.full_seconds]:
        yield (
            f"every connection was busy at times ({_names(full)}); what waited for one counts from "
            "when it was due"
        )
    if dead := [run for run in runs if not len(run.served)]:
        yield f"nothing was served ({_names(dead)})"


def _names(runs: Sequence[Run]) -> str:
    return ", ".join(dict.fromkeys(run.name for run in runs))


def of_step(step: Step) -> Text:
    """Return a line for a step of the search for capacity."""
    run = step.measured.run
    text = f"{run.name:>9}  p99 {milliseconds(run.p99):>7} ms  {len(run.samples):>6,} requests  "
    return Text.assemble(text, ("met", "green") if step.fault is None else (step.fault, "red"))


def verdict(capacity: Capacity) -> str:
    """Return the result of the search in one sentence."""
    wanted = capacity.goal
    goal = f"p99 within {wanted.p99_seconds:g} s and under {wanted.error_share:.1%} errors"
    if not capacity.rate:
        return f"no rate met the goal ({goal}): even an almost idle target is slower than that"
    return (
        f"capacity: {capacity.rate:g} images/s with {goal}; "
        f"the ceiling, latency aside, was {capacity.ceiling:.3g} images/s"
    )


def milliseconds(seconds: float) -> str:
    """Format seconds as milliseconds with three digits; empty for NaN."""
    if math.isnan(seconds):
        return ""
    shown = 1000 * seconds
    return f"{shown:,.0f}" if shown >= 100 else f"{shown:.1f}" if shown >= 10 else f"{shown:.2f}"  # noqa: PLR2004


def share(part: float) -> str:
    """Format a share as percentage; empty for zero."""
    return f"{part:.2%}" if part else ""


def _table(first: str, *rest: str | Column) -> Table:
    """Return a table with names to the left and figures to the right."""
    columns = [one if isinstance(one, Column) else Column(one, justify="right") for one in rest]
    return new_table(Column(first, no_wrap=True), *columns)

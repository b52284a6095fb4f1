"""Prints the output of `simile index`: a build's progress and result, plans, the choice of one."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from rich.table import Column

from services.cli.tables import add_row, console, echo, new_table
from services.shared.volume.manifest import Manifest, Measurement

if TYPE_CHECKING:
    from services.searcher.build.builder import BuildReport
    from services.searcher.progress import Progress

MEGABYTE: Final = 1e6


@contextlib.contextmanager
def shown_progress() -> Iterator[Progress]:
    """Show a build's progress on standard error: a bar on a terminal, lines elsewhere."""
    from services.searcher.progress import ReportedProgress, RichProgress

    if sys.stderr.isatty():
        with RichProgress() as bar:
            yield bar
    else:
        yield ReportedProgress(lambda seen: echo(f"index build: {seen}", err=True))


def show_plans(manifest: Manifest) -> None:
    """Print every plan measured at the build, the chosen one marked."""
    if not manifest.measured:
        return
    table = new_table(
        "", Column("method", no_wrap=True), "dim", "search_k", "probes", "re-rank", "recall",
        "at least", "q/s", "ms", "MB", title=f"{manifest.collection} {manifest.version}",
    )  # fmt: skip
    for one in _by_method(manifest.measured):
        chosen = one.plan == manifest.plan
        add_row(
            table,
            "*" if chosen else "",
            one.plan.method,
            str(one.plan.dimension),
            str(one.plan.search_k or ""),
            f"{one.plan.probes} of {one.plan.lists}" if one.plan.lists else "",
            str(one.plan.rerank or ""),
            f"{one.recall:.4f}",
            f"{one.recall_low:.4f}",
            f"{one.queries_per_second:,.0f}",
            f"{one.milliseconds:.2f}",
            f"{one.bytes / MEGABYTE:.1f}",
            style="bold" if chosen else "",
        )
    console().print(table)


def _by_method(measured: Sequence[Measurement]) -> Sequence[Measurement]:
    return sorted(measured, key=lambda one: (one.plan.method, one.plan.search_k))


def reason(manifest: Manifest) -> str:
    """Explain in one sentence why the plan was chosen."""
    plan = manifest.plan
    if not manifest.measured:
        return "the collection has a single item: there is nothing to measure"
    reached = [one for one in manifest.measured if one.recall_low >= manifest.recall_target]
    if not reached:
        return (
            f"no plan reaches recall {manifest.recall_target:g}; {plan.method} comes "
            f"closest, with {manifest.recall:.4f}"
        )
    kept = "" if manifest.energy >= 1 else (
        f"; {plan.dimension} of {manifest.dimension} dimensions keep {manifest.energy:.0%} of the "
        "vectors' energy"
    )  # fmt: skip
    return (
        f"{plan.method} is the fastest of {len(reached)} plans (of {len(manifest.measured)} tried) "
        f"whose recall@10 reaches {manifest.recall_target:g}{kept}"
    )


def show_report(report: BuildReport) -> None:
    """Print the result of a build: the files left out, the plans, and a summary."""
    manifest = report.manifest
    if report.failures:
        table = new_table("file", "code", "why", title=f"{len(report.failures)} files left out")
        for failure in report.failures:
            add_row(table, failure.path, failure.code, failure.detail)
        console(stderr=True).print(table)
    if report.published:
        show_plans(manifest)
    verb = "published" if report.published else "unchanged:"
    if report.pinned:
        name = manifest.collection
        echo(
            f"{name} is pinned: its active version stays until `simile index unpin {name}` or "
            f"`simile index activate {name} {manifest.version}`"
        )
    echo(
        f"{verb} {manifest.version}: {manifest.count} images "
        f"({report.embedded} embedded, {report.reused} reused, {len(report.failures)} left out) "
        f"in {report.seconds:.1f} s, recall@10 {manifest.recall:.3f} by {manifest.plan.method}"
    )

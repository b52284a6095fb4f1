"""Prints the output of `simile index`: a build's progress and result, plans, the choice of one."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from rich.table import Column

from services.cli.tables import add_row, age, console, echo, new_table
from services.shared.printable import printable
from services.shared.volume.manifest import Manifest, Measurement

if TYPE_CHECKING:
    from services.searcher.admin.versions import VersionRow
    from services.searcher.build.builder import BuildReport
    from services.searcher.build.vanished import Vanished
    from services.searcher.progress import Progress

MEGABYTE: Final = 1e6


@contextlib.contextmanager
def shown_progress(*, every_seconds: float | None = None) -> Iterator[Progress]:
    """Show a build's progress on standard error: a bar on a terminal, lines elsewhere.

    Args:
        every_seconds: the least time between two lines; by default ten seconds.
    """
    from services.searcher.progress import REPORT_SECONDS, ReportedProgress, RichProgress

    if sys.stderr.isatty():
        with RichProgress() as bar:
            yield bar
    else:
        yield ReportedProgress(
            lambda seen: echo(f"index build: {seen}", err=True),
            every_seconds=REPORT_SECONDS if every_seconds is None else every_seconds,
        )


@dataclass(frozen=True, slots=True)
class ListedVersion:
    """A version as `simile index list` shows it."""

    row: VersionRow
    pinned: bool
    held: bool

    def to_json(self) -> dict[str, object]:
        """Return it as JSON values; the facts of an unreadable version are null."""
        manifest = self.row.manifest
        return {
            "collection": self.row.collection,
            "version": self.row.version,
            "active": self.row.active,
            "pinned": self.pinned,
            "held": self.held,
            "readable": manifest is not None,
            "count": manifest and manifest.count,
            "method": manifest and manifest.plan.method,
            "recall": manifest and manifest.recall,
            "bytes": manifest and manifest.bytes,
            "model_id": manifest and manifest.model_id,
            "created_unix_ms": manifest and manifest.created_unix_ms,
        }


def show_versions(rows: Sequence[ListedVersion]) -> None:
    """Print the versions as a table."""
    table = new_table(
        Column("name", overflow="fold"), Column("version", no_wrap=True), "", "images",
        Column("method", no_wrap=True), "recall", "MB", Column("age", no_wrap=True),
    )  # fmt: skip
    for one in rows:
        marks = ["*"] * one.row.active + ["pin"] * one.pinned + ["held"] * one.held
        add_row(table, one.row.collection, one.row.version, " ".join(marks), *_facts(one.row))
    console().print(table)


def _facts(row: VersionRow) -> Sequence[str]:
    manifest = row.manifest
    if manifest is None:
        return ["?", "unreadable", "", "", ""]
    return [
        str(manifest.count),
        manifest.plan.method,
        f"{manifest.recall:.3f}",
        f"{manifest.bytes / MEGABYTE:.0f}",
        age(manifest.created_unix_ms),
    ]


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


def plans_json(manifest: Manifest) -> dict[str, object]:
    """Return the measured plans, the chosen one, and the reason, as JSON values."""
    return {
        "collection": manifest.collection,
        "index_version": manifest.version,
        "recall_target": manifest.recall_target,
        "chosen": asdict(manifest.plan),
        "reason": reason(manifest),
        "measured": [asdict(one) for one in _by_method(manifest.measured)],
    }


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
    if report.vanished.count:
        for line in vanished_lines(report.vanished):
            echo(line, err=True)
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


def vanished_lines(vanished: Vanished) -> Iterator[str]:
    """Yield the lines that name the images which are no longer there."""
    count = vanished.count
    yield f"{count:,} image{'' if count == 1 else 's'} no longer there:"
    for path in vanished.first:
        yield f"  {printable(path)}"
    if count > len(vanished.first):
        yield f"  and {count - len(vanished.first):,} more"

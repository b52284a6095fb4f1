"""Draws the plans measured by a build: recall against speed, the chosen plan circled."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from services.shared.errors import FileUnusable, MissingExtra
from services.shared.volume.manifest import Manifest, Measurement, MethodName

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INCHES: Final = (8.0, 5.0)
_DPI: Final = 120


def draw_plans(manifest: Manifest, out: Path) -> None:
    """Write a picture in the format of the suffix.

    Raises MissingExtra where matplotlib is not installed, FileUnusable.
    """
    figure = _new_figure()
    axes: Any = figure.add_subplot()
    by_method: dict[str, list[Measurement]] = defaultdict(list)
    for one in sorted(manifest.measured, key=lambda one: one.plan.search_k):
        by_method[one.plan.method].append(one)
    for method, measured in by_method.items():
        speeds = [one.queries_per_second for one in measured]
        recalls = [one.recall for one in measured]
        axes.plot(speeds, recalls, "o-", color=_color(method), label=method)
        for one in measured:
            if one.plan.search_k:
                axes.annotate(f"search_k {one.plan.search_k}, re-rank {one.plan.rerank}",
                              (one.queries_per_second, one.recall), fontsize=7,
                              xytext=(5, -9), textcoords="offset points")  # fmt: skip
            if one.plan == manifest.plan:
                axes.plot([one.queries_per_second], [one.recall], "o", ms=16, mfc="none",
                          mec="#9b2c1f", mew=2, label="chosen")  # fmt: skip
    axes.axhline(manifest.recall_target, color="#9b2c1f", ls="--", lw=1,
                 label=f"target {manifest.recall_target:g}")  # fmt: skip
    axes.set_xscale("log")
    for ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        ticks("{x:,.0f}")
    axes.set_xlabel("queries per second on one thread, batches of 32")
    axes.set_ylabel("recall@10 against exact search")
    axes.set_title(f"{manifest.collection}: {manifest.count} x {manifest.dimension}")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    try:
        figure.savefig(out, dpi=_DPI, bbox_inches="tight")
    except OSError as error:
        message = f"the plot {out} can't be written: {error.strerror or error}"
        raise FileUnusable(message) from error


def _color(method: str) -> str:
    """Return a color of matplotlib's cycle, the same in every plot."""
    names = get_args(MethodName)
    return f"C{names.index(method) if method in names else len(names)}"


def _new_figure() -> Figure:
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 (an extra, and slow to import)
    except ImportError as error:
        message = "drawing needs matplotlib: pip install 'simile-search[plots]'"
        raise MissingExtra(message) from error
    return Figure(figsize=_INCHES)

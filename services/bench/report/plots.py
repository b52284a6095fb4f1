"""Draws runs as SVG: throughput, latencies, stages, CPU. Seconds come in, ms are drawn."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from services.bench.capacity import Capacity
from services.bench.load.scrape import Batches
from services.bench.results import PERCENTILES
from services.bench.run import Kind, Run, kind_of

_INK: Final = "#1c2321"
_QUIET: Final = "#58635f"
_ACCENT: Final = "#1f5c57"
_WARN: Final = "#c7762a"
_WRONG: Final = "#9b2c1f"
_COLORS: Final = (
    "#1f5c57", "#c7762a", "#2f6fb0", "#8b5fa8", "#7d8f3c", "#b2507a", "#4d4d4d", "#4fa39a",
)  # fmt: skip
_STYLE: Final[dict[Any, Any]] = {
    "font.family": "sans-serif", "font.size": 10, "text.color": _INK, "axes.labelcolor": _QUIET,
    "axes.edgecolor": "#b9b6ac", "xtick.color": _QUIET, "ytick.color": _QUIET,
    "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#e6e4dc", "axes.axisbelow": True,
    "legend.frameon": False, "legend.fontsize": 9, "svg.hashsalt": "simile",
    "xtick.minor.size": 0, "ytick.minor.size": 0,
}  # fmt: skip
_WIDTH: Final = 9.6
_PANELS: Final = 3
_MAX_POINTS: Final = 1000
_CDF_POINTS: Final = 300
_DPI: Final = 130
_CROWDED: Final = 8
_TICK_STEPS: Final = (1, 2, 5)
_DECADES: Final = (1,)


def throughput(runs: Sequence[Run]) -> str:
    """Plot images per second by run, with a mark at the offered rate."""
    with _drawing(3.0) as (figure, axes):
        places = range(len(runs))
        bars = axes.bar(places, [run.goodput for run in runs], color=_ACCENT, width=0.5)
        axes.bar_label(bars, fmt="{:,.1f}", padding=3, color=_INK)
        asked = [(place, run.rate) for place, run in enumerate(runs) if run.rate is not None]
        if asked:
            axes.plot(*zip(*asked, strict=True), "_", ms=30, mew=2, color=_WARN, label="offered")
            axes.legend(loc="upper left", bbox_to_anchor=(0.01, 1.06))
        _name_runs(axes, runs)
        axes.set_ylabel("served, images/s")
        axes.margins(y=0.18)
        return _svg(figure)


def percentiles(runs: Sequence[Run]) -> str:
    """Plot the percentiles of the served latencies by run."""
    with _drawing(3.0) as (figure, axes):
        for percent, color in zip(PERCENTILES, _COLORS, strict=False):
            heights = [1000 * run.percentile(percent) for run in runs]
            axes.plot(range(len(runs)), heights, "o-", color=color, ms=5, label=f"p{percent:g}")
        _name_runs(axes, runs)
        _log_scale(axes, "y")
        axes.set_ylabel("latency, ms")
        axes.margins(x=0.1, y=0.1)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), reverse=True)
        return _svg(figure)


def distribution(runs: Sequence[Run]) -> str:
    """Plot the share of requests served within a time."""
    with _drawing(3.4) as (figure, axes):
        shares = np.linspace(0, 100, _CDF_POINTS)
        for run, color in zip(runs, _shades(len(runs)), strict=True):
            if len(run.served):
                axes.plot(1000 * np.percentile(run.served, shares), shares, color=color,
                          lw=1.8, label=run.name)  # fmt: skip
        _log_scale(axes, "x")
        axes.set_xlabel("latency, ms")
        axes.set_ylabel("served within it, %")
        axes.set_ylim(0, 101)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return _svg(figure)


def over_time(runs: Sequence[Run]) -> str:
    """Plot the latency of each request by its start, in a panel for each run."""
    rows = math.ceil(len(runs) / _PANELS)
    columns = min(len(runs), _PANELS)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 0.5 + 2.3 * rows), layout="constrained")
        grid: Any = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axes, run in zip(grid.flat, runs, strict=False):
            _scatter(axes, run)
        for axes in grid.flat[len(runs) :]:
            axes.remove()
        for row in grid:
            row[0].set_ylabel("latency, ms")
        marks = [figure.gca().plot([], [], "o", ms=4, color=color, label=name)[0]
                 for name, color in _KINDS.items()]  # fmt: skip
        figure.legend(handles=marks, loc="outside upper right", ncols=len(marks))
        return _svg(figure)


def _scatter(axes: Any, run: Run) -> None:  # noqa: ANN401 (matplotlib's own types say less)
    step = math.ceil(len(run.samples) / _MAX_POINTS) or 1
    for kind, color in _KINDS.items():
        # Every failure is drawn: there may be few of them among many requests.
        chosen = run.samples[::step] if kind == "served" else run.samples
        shown = [one for one in chosen if kind_of(one.code) == kind]
        axes.plot([one.at_seconds for one in shown], [1000 * one.latency_seconds for one in shown],
                  "o", ms=2.2, mew=0, alpha=0.6, color=color, rasterized=True)  # fmt: skip
    axes.set_title(run.name, loc="left", color=_INK)
    axes.set_xlabel("seconds")
    _log_scale(axes, "y", _DECADES)


_KINDS: Final[Mapping[Kind, str]] = {"served": _ACCENT, "refused": _WARN, "failed": _WRONG}


def stacked(rows: Mapping[str, Mapping[str, float]], label: str) -> str:
    """Plot stacked bars: by row, then by part, in seconds."""
    parts = list(dict.fromkeys(part for row in rows.values() for part in row))
    with _drawing(0.9 + 0.38 * len(rows) + 0.1 * (len(parts) > _PANELS)) as (figure, axes):
        left = np.zeros(len(rows))
        for number, part in enumerate(parts):
            widths = np.array([1000 * row.get(part, 0.0) for row in rows.values()])
            axes.barh(list(rows), widths, left=left, height=0.6, label=part,
                      color=_COLORS[number % len(_COLORS)])  # fmt: skip
            left += widths
        for place, total in enumerate(left):
            axes.annotate(_figure(total), (total, place), xytext=(4, 0), va="center",
                          textcoords="offset points")  # fmt: skip
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(label)
        axes.margins(x=0.08)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return _svg(figure)


def batches(found: Sequence[tuple[str, Batches]]) -> str:
    """Plot the sizes of the embedders' batches by run."""
    limits = sorted({limit for _, one in found for limit, count in one.by_limit.items() if count})
    with _drawing(2.8) as (figure, axes):
        width = 0.8 / len(found)
        for number, (name, one) in enumerate(found):
            places = np.arange(len(limits)) + (number - (len(found) - 1) / 2) * width
            shares = [100 * one.by_limit.get(limit, 0.0) / one.count for limit in limits]
            axes.bar(places, shares, width=width * 0.92, color=_shades(len(found))[number],
                     label=name)  # fmt: skip
        axes.set_xticks(range(len(limits)), _ranges(limits))
        axes.set_xlabel("images in a batch")
        axes.set_ylabel("batches, %")
        axes.grid(visible=False, axis="x")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return _svg(figure)


def _ranges(limits: Sequence[float]) -> Sequence[str]:
    """Return labels such as 1, 2, 3-4, 5-8; the limits are powers of two."""
    return [
        f"{limit:g}" if limit <= 2 else f"{limit / 2 + 1:g}-{limit:g}"  # noqa: PLR2004
        for limit in limits
    ]


def search(capacity: Capacity) -> str:
    """Plot the steps of the search for capacity: p99 by rate."""
    with _drawing(3.0) as (figure, axes):
        for met, color, name in ((True, _ACCENT, "met"), (False, _WRONG, "missed")):
            shown = [one for one in capacity.steps if (one.fault is None) == met]
            axes.plot([one.rate for one in shown], [1000 * one.measured.run.p99 for one in shown],
                      "o", ms=8, color=color, alpha=0.85, label=name)  # fmt: skip
        axes.axhline(1000 * capacity.goal.p99_seconds, color=_WARN, ls="--", label="target")
        if capacity.rate:
            axes.axvline(capacity.rate, color=_ACCENT, ls=":", label="capacity")
        _log_scale(axes, "y")
        axes.set_xlabel("offered, images/s")
        axes.set_ylabel("p99, ms")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return _svg(figure)


@contextlib.contextmanager
def _drawing(inches: float) -> Iterator[tuple[Figure, Any]]:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, inches), layout="constrained")
        yield figure, figure.subplots()


def _name_runs(axes: Any, runs: Sequence[Run]) -> None:  # noqa: ANN401 (as above)
    crowded = len(runs) > _CROWDED
    axes.set_xticks(range(len(runs)), [run.name for run in runs], rotation=35 if crowded else 0,
                    ha="right" if crowded else "center")  # fmt: skip
    axes.grid(visible=False, axis="x")


def _figure(value: float) -> str:
    """Format three digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004


def _log_scale(axes: Any, which: str, steps: Sequence[int] = _TICK_STEPS) -> None:  # noqa: ANN401 (as above)
    """Set a logarithmic scale with plain numbers: 20, 50, 100."""
    axes.set(**{f"{which}scale": "log"})
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(mpl.ticker.LogLocator(subs=steps, numticks=12))
    axis.set_major_formatter("{x:,g}")
    axis.set_minor_formatter(mpl.ticker.NullFormatter())


def _shades(count: int) -> Sequence[Any]:
    """Return a colour for each run, ordered when there are many."""
    if count <= len(_COLORS):
        return _COLORS[:count]
    return list(mpl.colormaps["viridis"](np.linspace(0, 0.9, count)))


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", dpi=_DPI, transparent=True, metadata={"Date": None})
    return out.getvalue()

"""Draws a dashboard as a picture: every panel in the grid, much as Grafana does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FuncFormatter, Locator, MaxNLocator, MultipleLocator

from tests.dashboards.boards import Board, Panel
from tests.dashboards.units import written

mpl.use("Agg")

COLUMNS: Final = 24
COLUMN: Final = 62.0
ROW: Final = 34.0
GAP: Final = 8.0
HEAD: Final = 74.0
DPI: Final = 100

_INK: Final = "#24292e"
_PALE: Final = "#6e7781"
_LINE: Final = "#d8dee4"
_PAGE: Final = "#f4f5f7"
_NAMED: Final = {
    "green": "#56a64b",
    "orange": "#ff780a",
    "red": "#e02f44",
    "blue": "#3274d9",
    "purple": "#a352cc",
    "transparent": "none",
}
_PALETTE: Final = (
    "#3274d9", "#ff780a", "#37872d", "#a352cc", "#e0b400", "#00868b", "#e02f44", "#8f6d4a",
    "#5794f2", "#96d98d", "#ff9830", "#ca95e5",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a panel: its name in the legend, its labels, times in Unix seconds, values."""

    name: str
    labels: Mapping[str, str]
    times: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Drawn:
    """The data of a dashboard's panels: lines by panel, events by annotation."""

    start: float
    end: float
    lines: Mapping[str, Sequence[Line]]
    marks: Mapping[str, Sequence[float]]


def draw(board: Board, drawn: Drawn, path: Path) -> None:
    """Write the dashboard's picture as a PNG."""
    bottom = max(_y(panel) + _height(panel) for panel in board.panels)
    width, height = COLUMNS * COLUMN + 2 * GAP, HEAD + bottom * ROW + 2 * GAP
    with mpl.rc_context({"font.family": "DejaVu Sans", "font.size": 8, "text.color": _INK}):
        figure = plt.figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=_PAGE)
        page = _Page(figure, width, height)
        _head(page, board, drawn)
        for panel in board.panels:
            _panel(page, panel, drawn)
        figure.savefig(path, dpi=DPI, facecolor=_PAGE)
        plt.close(figure)


class _Page:
    """A figure with coordinates in pixels from the upper left corner."""

    def __init__(self, figure: Figure, width: float, height: float) -> None:
        self.figure = figure
        self.width = width
        self.height = height

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        return self.figure.add_axes((
            left / self.width, 1 - (top + height) / self.height,
            width / self.width, height / self.height,
        ))  # fmt: skip

    def text(self, left: float, top: float, text: str, **style: Any) -> None:
        style = {"va": "top", **style}
        self.figure.text(left / self.width, 1 - top / self.height, text, **style)

    def width_of(self, text: str, size: float) -> float:
        """Return the width of a text in pixels."""
        drawn = self.figure.text(0, 0, text, fontsize=size)
        box = drawn.get_window_extent(self.figure.canvas.get_renderer())  # type: ignore[attr-defined]
        drawn.remove()
        return float(box.width)

    def card(self, left: float, top: float, width: float, height: float) -> None:
        self.figure.add_artist(
            FancyBboxPatch(
                (left, self.height - top - height), width, height,
                boxstyle="round,pad=0,rounding_size=4", transform=_pixels(self),
                facecolor="white", edgecolor=_LINE, linewidth=0.8, zorder=-1,
            )
        )  # fmt: skip


def _pixels(page: _Page) -> mpl.transforms.Transform:
    scale = mpl.transforms.Affine2D().scale(1 / page.width, 1 / page.height)
    return scale + page.figure.transFigure


def _y(panel: Panel) -> int:
    return int(panel.spec["gridPos"]["y"])


def _height(panel: Panel) -> int:
    return int(panel.spec["gridPos"]["h"])


def _head(page: _Page, board: Board, drawn: Drawn) -> None:
    page.text(2 * GAP, 14, board.spec["title"], fontsize=15, weight="bold")
    page.text(2 * GAP, 42, board.spec["description"], fontsize=9.5, color=_PALE)
    minutes = round((drawn.end - drawn.start) / 60)
    chosen = f"Namespace  All     Release  All     last {minutes} minutes"
    page.text(page.width - 2 * GAP, 17, chosen, fontsize=9, color=_PALE, ha="right")


def _panel(page: _Page, panel: Panel, drawn: Drawn) -> None:
    place = panel.spec["gridPos"]
    left = GAP + place["x"] * COLUMN + GAP / 2
    top = HEAD + place["y"] * ROW + GAP / 2
    width, height = place["w"] * COLUMN - GAP, place["h"] * ROW - GAP
    if panel.kind == "row":
        page.text(left + 2, top + 8, f"⌄  {panel.title}", fontsize=10.5, weight="bold")
        return
    page.card(left, top, width, height)
    page.text(left + 10, top + 8, panel.title, fontsize=9, weight="bold")
    lines = drawn.lines[panel.title]
    inner = (left + 10, top + 28, width - 20, height - 36)
    kinds = {"timeseries": _timeseries, "stat": _stat, "table": _table}
    kinds[panel.kind](page, panel, lines, inner, drawn)


Rect: TypeAlias = tuple[float, float, float, float]


def _unit(panel: Panel) -> str:
    return str(panel.spec["fieldConfig"]["defaults"].get("unit", "none"))


def _decimals(panel: Panel) -> int | None:
    found = panel.spec["fieldConfig"]["defaults"].get("decimals")
    return None if found is None else int(found)


def _steps(panel: Panel) -> list[tuple[float, str]]:
    steps = panel.spec["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
    return [
        (
            -math.inf if step["value"] is None else step["value"],
            _NAMED.get(step["color"], step["color"]),
        )
        for step in steps
    ]


def _colors(panel: Panel, lines: Sequence[Line]) -> dict[str, str]:
    fixed = {
        override["matcher"]["options"]: prop["value"]["fixedColor"]
        for override in panel.spec["fieldConfig"].get("overrides", [])
        for prop in override["properties"]
        if prop["id"] == "color"
    }
    free = [color for color in _PALETTE if color not in fixed.values()]
    others = [line.name for line in lines if line.name not in fixed]
    return fixed | {name: free[place % len(free)] for place, name in enumerate(others)}


def _timeseries(
    page: _Page, panel: Panel, lines: Sequence[Line], inner: Rect, drawn: Drawn
) -> None:
    left, top, width, height = inner
    colors = _colors(panel, lines)
    legend = _legend(page, lines, colors, (left, top + height, width))
    axes = page.axes(left + 46, top + 2, width - 50, height - legend - 22)
    if lines:
        custom = panel.spec["fieldConfig"]["defaults"].get("custom", {})
        if custom.get("stacking", {}).get("mode") == "normal":
            _stack(axes, lines, colors)
        else:
            for line in lines:
                color = colors[line.name]
                axes.plot(line.times, line.values, color=color, linewidth=1.4)
                if panel.spec["fieldConfig"]["defaults"].get("min") == 0:
                    axes.fill_between(line.times, line.values, color=color, alpha=0.06, linewidth=0)
    else:
        axes.text(0.5, 0.5, "No data", transform=axes.transAxes, ha="center", va="center",
                  color=_PALE, fontsize=11)  # fmt: skip
    _axes(axes, panel, drawn)


def _stack(axes: Axes, lines: Sequence[Line], colors: Mapping[str, str]) -> None:
    times = sorted({time for line in lines for time in line.times})
    base = np.zeros(len(times))
    for line in lines:
        known = dict(zip(line.times, line.values, strict=True))
        values = np.nan_to_num(np.array([known.get(time, 0.0) for time in times]))
        color = colors[line.name]
        axes.fill_between(times, base, base + values, color=color, alpha=0.55, linewidth=0)
        axes.plot(times, base + values, color=color, linewidth=0.9)
        base = base + values


def _axes(axes: Axes, panel: Panel, drawn: Drawn) -> None:
    defaults = panel.spec["fieldConfig"]["defaults"]
    axes.set_xlim(drawn.start, drawn.end)
    low, high = axes.get_ylim()
    low = defaults.get("min", low)
    high = defaults.get("max", high)
    if not any(np.any(line.get_ydata()) for line in axes.get_lines()):
        high = low + 1  # all values are zero, or there are none
    axes.set_ylim(low, high + 0.02 * (high - low))
    for value, color in _steps(panel):
        if low < value <= high:
            axes.axhline(value, color=color, linestyle=(0, (5, 4)), linewidth=1, alpha=0.9)
    for name, times in drawn.marks.items():
        color = _NAMED["purple" if name == "Deploy" else "blue"]
        for time in times:
            axes.axvline(time, color=color, linestyle=(0, (2, 3)), linewidth=0.9)
            axes.plot([time], [0], marker="^", color=color, markersize=5, clip_on=False,
                      transform=axes.get_xaxis_transform())  # fmt: skip
    unit, decimals = _unit(panel), _decimals(panel)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value, unit, decimals)))
    axes.yaxis.set_major_locator(_locator(unit, high - low, whole=decimals == 0))
    axes.set_xticks([drawn.start + passed for passed in _ticks(drawn.end - drawn.start)])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _clock(value - drawn.start)))
    axes.grid(visible=True, color="#eaeef2", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=_PALE, labelsize=7.5)
    for side in axes.spines.values():
        side.set_visible(False)


def _locator(unit: str, span: float, *, whole: bool) -> Locator:
    """Return the positions of grid lines: powers of two for bytes, clock steps for long times."""
    if unit == "bytes":
        return MultipleLocator(2.0 ** math.ceil(math.log2(span / 5)))
    if unit == "s" and span > 60:
        return MultipleLocator(_round(span, 4))
    return MaxNLocator(5, integer=whole, steps=[1, 2, 2.5, 5, 10])


def _round(seconds: float, most: int) -> float:
    """Return a step of a clock, so that there are at most so many."""
    known = (10, 15, 30, 60, 120, 300, 600, 1800, 3600, 4 * 3600, 86400, math.inf)
    return next(step for step in known if seconds / step <= most)


def _ticks(seconds: float) -> list[float]:
    """Return round times, about six."""
    step = _round(seconds, 6)
    return [step * number for number in range(1, int(seconds / step) + 1)]


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _legend(
    page: _Page, lines: Sequence[Line], colors: Mapping[str, str], place: tuple[float, float, float]
) -> float:
    """Draw names under the axes in as many rows as they need; return their pixels."""
    left, bottom, width = place
    rows: list[list[tuple[float, str]]] = [[]]
    used = 0.0
    for name in dict.fromkeys(line.name for line in lines):
        needed = 30 + page.width_of(name, 7.8)
        if rows[-1] and used + needed > width:
            rows.append([])
            used = 0.0
        rows[-1].append((left + used, name))
        used += needed
    for number, row in enumerate(rows):
        top = bottom - 14 * (len(rows) - number)
        for at, name in row:
            page.text(at, top + 1, "━", color=colors[name], fontsize=9, weight="bold")
            page.text(at + 15, top + 2, name, fontsize=7.8, color=_INK)
    return 14.0 * len(rows)


def _stat(page: _Page, panel: Panel, lines: Sequence[Line], inner: Rect, drawn: Drawn) -> None:
    left, top, width, height = inner
    points = [
        (time, value)
        for line in lines[:1]
        for time, value in zip(line.times, line.values, strict=True)
        if not math.isnan(value)
    ]
    if not points:
        page.text(left + width / 2, top + height / 2, "none", fontsize=18, color=_PALE,
                  ha="center", va="center")  # fmt: skip
        return
    last = points[-1][1]
    color = next((color for value, color in reversed(_steps(panel)) if last >= value), _INK)
    if panel.spec["options"].get("graphMode") == "area" and len(points) > 1:
        axes = page.axes(left - 10, top + height * 0.52, width + 20, height * 0.48 + 7)
        times, values = zip(*points, strict=True)
        axes.plot(times, values, color=color, linewidth=1.1)
        floor = min(0.0, *values)
        axes.fill_between(times, floor, values, color=color, alpha=0.15, linewidth=0)
        axes.set_xlim(drawn.start, drawn.end)
        axes.set_ylim(floor, max(values) * 1.15 or 1)
        axes.set_axis_off()
    page.text(left + width / 2, top + height * 0.30, written(last, _unit(panel), _decimals(panel)),
              fontsize=21, weight="bold", color=color, ha="center", va="center")  # fmt: skip


def _table(page: _Page, panel: Panel, lines: Sequence[Line], inner: Rect, drawn: Drawn) -> None:
    del drawn
    left, top, width, height = inner
    (organize,) = panel.spec["transformations"]
    columns = organize["options"]["renameByName"]
    # A table shows the present: a line that ended before is not in it.
    latest = max((line.times[-1] for line in lines), default=0.0)
    rows = [
        [
            *(line.labels.get(name, "") for name in columns if name != "Value"),
            f"{line.values[-1]:g}",
        ]
        for line in sorted(lines, key=lambda line: sorted(line.labels.items()))
        if line.times[-1] == latest
    ]
    widths = [
        16 + max(page.width_of(cell, 8) for cell in column)
        for column in zip(columns.values(), *rows, strict=True)
    ]
    spare = max(0.0, width - sum(widths)) / len(widths)
    offsets = [0.0, *np.cumsum(np.array(widths) + spare)[:-1]]
    for offset, heading in zip(offsets, columns.values(), strict=True):
        page.text(left + offset, top + 4, heading, fontsize=8, weight="bold", color=_PALE)
    for number, row in enumerate(rows[: int(height // 22) - 1]):
        line_top = top + 22 * (number + 1)
        rule = page.axes(left, line_top, width, 0.5)
        rule.set_axis_off()
        rule.axhline(0.5, color=_LINE, linewidth=0.8)
        for offset, cell in zip(offsets, row, strict=True):
            page.text(left + offset, line_top + 6, cell, fontsize=8)

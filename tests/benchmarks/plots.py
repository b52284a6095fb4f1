"""Plots the pictures of the search benchmark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from tests.benchmarks.engines import ENGINES
from tests.benchmarks.results import Figures

mpl.use("Agg")

_STYLES: Final = {
    "simile-0.99": ("#c2410c", "*"),
    "simile-0.999": ("#7c2d12", "*"),
    "annoy": ("#2563eb", "o"),
    "hnswlib": ("#059669", "s"),
    "faiss": ("#7c3aed", "^"),
    "exact": ("#6b7280", "D"),
}
_COLUMNS: Final = 3
_ALMOST_ALL: Final = 1e-4
"""The place of recall 1 on the axis of 1 - recall."""


def recall_against_speed(sets: Mapping[str, Figures], path: Path) -> None:
    """Plot for each set queries per second, logarithmic, over recall, spread out towards 1."""
    columns = min(_COLUMNS, len(sets))
    rows = math.ceil(len(sets) / columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(4.6 * columns, 3.9 * rows), squeeze=False, layout="constrained"
    )
    for panel in panels.flat[len(sets) :]:
        panel.set_axis_off()
    for panel, figures in zip(panels.flat, sets.values(), strict=False):
        _panel(panel, figures)
    handles = [
        panels.flat[0].plot([], [], color=color, marker=marker, label=ENGINES[engine].title)[0]
        for engine, (color, marker) in _STYLES.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2 * columns, frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(panel: Axes, figures: Figures) -> None:
    for engine, table in figures["engines"].items():
        color, marker = _STYLES[engine]
        points = sorted(table["points"], key=lambda point: point["effort"])
        panel.plot(
            [_missed(point["recall"]) for point in points],
            [point["queries_per_second"] for point in points],
            color=color, marker=marker, markersize=14 if marker == "*" else 5, linewidth=1,
        )  # fmt: skip
    panel.set_yscale("log")
    panel.set_xscale("log")
    panel.invert_xaxis()
    shares = (0.5, 0.8, 0.9, 0.99, 0.999, 1.0)
    panel.set_xticks([_missed(share) for share in shares], [f"{share:g}" for share in shares])
    panel.minorticks_off()
    panel.set_title(figures["title"], fontsize=10)
    panel.set_xlabel("recall@10")
    panel.set_ylabel("queries/s, one thread")
    panel.grid(visible=True, alpha=0.25)


def _missed(recall: float) -> float:
    return max(1 - recall, _ALMOST_ALL)


_GROWTH: Final = (
    ("build_seconds", "seconds of a build", 1.0),
    ("build_peak_anonymous_bytes", "MiB held by a build, at most", 2.0**20),
    ("bytes", "MiB mapped", 2.0**20),
    ("one_query_ms_p50", "ms for one query", 1.0),
    ("queries_per_second", "queries/s, batches of 32", 1.0),
)


def growth(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plot each cost over the number of vectors; both axes are logarithmic."""
    figure, panels = plt.subplots(
        1, len(_GROWTH), figsize=(3.4 * len(_GROWTH), 3.3), layout="constrained"
    )
    counts = [row["count"] for row in rows]
    for panel, (name, label, unit) in zip(panels, _GROWTH, strict=True):
        panel.plot(counts, [row[name] / unit for row in rows], color="#c2410c", marker="o")
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel("vectors of 256 dimensions")
        panel.set_title(label, fontsize=10)
        panel.grid(visible=True, which="both", alpha=0.2)
    figure.savefig(path, dpi=110)
    plt.close(figure)

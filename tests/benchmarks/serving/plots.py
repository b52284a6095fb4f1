"""Plots throughput and latency by the number of clients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.benchmarks.serving.measured import Measured, middle
from tests.benchmarks.serving.rounds import CONCURRENCIES
from tests.benchmarks.serving.systems import ONE_CORE, TWO_CORES

mpl.use("Agg")

_COLORS: Final = {
    "simile": "#c2410c",
    "micro-batcher": "#6b7280",
    "litserve": "#2563eb",
    "bentoml": "#059669",
    "ray": "#7c3aed",
    "ray-haproxy": "#c026d3",
    "2018": "#a16207",
}
_MARKERS: Final = ("o", "s", "^")


def throughput(found: Measured, path: Path) -> None:
    """Plot images per second over clients, the given and the documented side by side."""
    figure, panels = plt.subplots(1, 2, figsize=(13, 6.4), sharey=True, layout="constrained")
    limit = middle(
        turn["limit"]["cores"]["images_per_second"]
        for name in found.systems
        for turn in found.turns(name)
    )
    for panel, others, title in (
        (panels[0], "given", "rivals given Simile's runtime and decoder"),
        (panels[1], "documented", "rivals as documented, and the design of 2018"),
    ):
        for name in _shown(found, others):
            _line(panel, found, name, [found.goodput(name, count) for count in CONCURRENCIES])
        if limit is not None:
            panel.axhline(limit, color="#111827", linewidth=1, linestyle="--")
            panel.text(1, limit, " the limit: a loop without a server", va="bottom", fontsize=8)
        panel.set_title(title, fontsize=10)
        panel.margins(y=0.1)
        panel.set_ylim(bottom=0)
        _finish(panel)
    panels[0].set_ylabel("images/s")
    _legend(figure, panels)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def latency(found: Measured, path: Path) -> None:
    """Plot p50 and p99 over clients, logarithmic."""
    figure, panels = plt.subplots(1, 2, figsize=(13, 6.4), sharey=True, layout="constrained")
    for panel, quantile in zip(panels, (50, 99), strict=True):
        for name in [*_shown(found, "given"), *_rest(found)]:
            values = [found.latency_ms(name, count, quantile) for count in CONCURRENCIES]
            _line(panel, found, name, values)
        panel.set_yscale("log")
        panel.set_title(f"p{quantile}, ms", fontsize=10)
        _finish(panel)
    _legend(figure, panels)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _shown(found: Measured, variant: str) -> list[str]:
    """Return Simile, and the rivals of that variant."""
    simile = [name for name in found.of_family("simile") if name not in (ONE_CORE, TWO_CORES)]
    others = [name for name in found.systems if variant in name]
    return [*simile, *others, *(_old(found) if variant == "documented" else [])]


def _rest(found: Measured) -> list[str]:
    return [*(name for name in found.systems if "documented" in name), *_old(found)]


def _old(found: Measured) -> list[str]:
    return found.of_family("2018")


def _line(panel: Axes, found: Measured, name: str, values: list[float | None]) -> None:
    system = found.systems[name]
    siblings = found.of_family(system["family"])
    points = [
        (count, value)
        for count, value in zip(CONCURRENCIES, values, strict=True)
        if value is not None
    ]
    if points:
        panel.plot(
            *zip(*points, strict=True),
            color=_COLORS[system["family"]],
            marker=_MARKERS[siblings.index(name) % len(_MARKERS)],
            linestyle=":" if "documented" in name else "-",
            linewidth=2.4 if system["family"] == "simile" else 1.2,
            label=system["title"] + (", documented" if "documented" in name else ""),
        )


def _finish(panel: Axes) -> None:
    panel.set_xscale("log", base=2)
    panel.set_xticks(CONCURRENCIES, [str(count) for count in CONCURRENCIES])
    panel.set_xlabel("clients")
    panel.grid(visible=True, alpha=0.25)


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """Draw a common legend below all panels: each name is there once."""
    named: dict[str, Artist] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            named.setdefault(str(label), handle)
    figure.legend(
        list(named.values()), list(named),
        loc="outside lower center", ncols=3, fontsize=9, frameon=False,
    )  # fmt: skip

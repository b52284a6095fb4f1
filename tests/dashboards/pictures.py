"""Draws docs/images/dashboard-*.png: `python -m tests.dashboards.pictures`.

Starts RabbitMQ, Simile and Prometheus here, puts load on them for some minutes, queries Prometheus
for each panel, and draws the answers in the dashboard's own grid, without Grafana.
"""

from __future__ import annotations

import asyncio
import math
import re
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.dashboards import boards
from tests.dashboards.drawing import Drawn, Line, draw
from tests.dashboards.observed import observed
from tests.support.prometheus import Prometheus, Series
from tests.support.rabbitmq import running_node

IMAGES: Final = Path(__file__).resolve().parents[2] / "docs" / "images"
LOAD_SECONDS: Final = 180.0
STEP: Final = 2.0
WINDOW: Final = "15s"
_ONCE: Final = 30.0
"""Seconds within which points of an annotation are the same event."""


def evaluated(board: boards.Board, prometheus: Prometheus, start: float, end: float) -> Drawn:
    """Return Prometheus' answer to every query of the dashboard."""

    def asked(expression: str) -> list[Series]:
        filled = boards.with_values(expression, WINDOW)
        return prometheus.query_range(filled, start=start, end=end, step=STEP)

    lines = {
        panel.title: [
            _line(legend, series)
            for expression, legend in panel.queries
            for series in sorted(asked(expression), key=lambda one: sorted(one.labels.items()))
        ]
        for panel in board.panels
    }
    marks = {
        name: _events([point for one in asked(expression) for point in one.points])
        for name, expression in board.annotations.items()
    }
    return Drawn(start, end, lines, marks)


def _line(legend: str, series: Series) -> Line:
    name = re.sub(r"\{\{(\w+)\}\}", lambda found: series.labels.get(found[1], ""), legend)
    times = [time for time, _ in series.points]
    return Line(name, series.labels, times, [value for _, value in series.points])


def _events(points: list[tuple[float, float]]) -> list[float]:
    found: list[float] = []
    latest = -math.inf
    for at, _ in sorted(points):
        if at - latest > _ONCE:
            found.append(at)
        latest = at
    return found


def main() -> None:
    """Draw every dashboard."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            running_node(folder / "rabbitmq") as node,
            observed(node, folder, per_class=15, scrape_interval="2s") as running,
        ):
            start = time.time()
            asyncio.run(running.load(LOAD_SECONDS, clients=5, copies=1))
            end = time.time()
            for board in boards.read():
                drawn = evaluated(board, running.prometheus, start, end)
                draw(board, drawn, IMAGES / f"dashboard-{board.name}.png")


if __name__ == "__main__":
    main()

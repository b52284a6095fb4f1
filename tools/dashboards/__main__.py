"""Writes the dashboards of the chart: `python -m tools.dashboards`; a test detects drift."""

from __future__ import annotations

from tools.dashboards import boards

if __name__ == "__main__":
    for name, text in boards.rendered().items():
        (boards.FOLDER / name).write_text(text, encoding="utf-8")

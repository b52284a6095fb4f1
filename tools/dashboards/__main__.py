"""Write the dashboards that the chart carries: `python -m tools.dashboards`; a test finds drift."""

from __future__ import annotations

from tools.dashboards import boards

if __name__ == "__main__":
    for name, text in boards.rendered().items():
        (boards.FOLDER / name).write_text(text, encoding="utf-8")

"""Defines the common parts of dashboards: variables, annotations, links, time range."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models

from tools.dashboards.panels import SOURCE, AnyPanel
from tools.dashboards.queries import select

TAG: Final = "simile"


def _new(metric: str, *by: str) -> str:
    """Return a series for two minutes after a metric appeared with new labels."""
    seen = select(metric)
    labels = ", ".join(by)
    return f"sum by ({labels}) ({seen}) unless sum by ({labels}) ({seen} offset 2m)"


class Event(models.AnnotationQuery):
    """An annotation with a text; Grafana's schema leaves the datasource's own fields open."""

    def __init__(self, name: str, expression: str, text: str, color: str) -> None:
        super().__init__(name=name, datasource=SOURCE, icon_color=color, expr=expression)
        self._text = text

    def to_json(self) -> dict[str, object]:
        """Return the JSON for Grafana."""
        own = {"step": "30s", "titleFormat": self.name, "textFormat": self._text}
        return {**super().to_json(), **own}


class _Built(Builder[models.AnnotationQuery]):
    """Wraps a finished event where a builder is required."""

    def __init__(self, event: Event) -> None:
        self._event = event

    def build(self) -> models.AnnotationQuery:
        """Return the event."""
        return self._event


_DEPLOY: Final = Event(
    "Deploy",
    _new("simile_process_info", "service", "version"),
    "{{service}} {{version}}",
    "purple",
)
_SWAP: Final = Event(
    "Index swap",
    _new("simile_searcher_index_items", "collection", "index_version"),
    "{{collection}} {{index_version}}",
    "blue",
)


def frame(uid: str, title: str, description: str) -> dashboard.Dashboard:
    """Return an empty dashboard with the common parts."""
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Simile")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
        )
        .with_variable(_choice("namespace", "simile_process_info"))
        .with_variable(_choice("release", 'simile_process_info{namespace=~"$namespace"}'))
        .annotation(_Built(_DEPLOY))
        .annotation(_Built(_SWAP))
    )


def _choice(label: str, metric: str) -> dashboard.QueryVariable:
    """Return a variable with the values of a label; "all" includes series without the label."""
    return (
        dashboard.QueryVariable(label)
        .label(label.capitalize())
        .datasource(SOURCE)
        .query(f"label_values({metric}, {label})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(text="All", value="$__all"))
    )


def row(board: dashboard.Dashboard, title: str, *panels: AnyPanel) -> None:
    """Add a heading and its panels, from left to right."""
    board.with_row(dashboard.Row(title))
    for panel in panels:
        board.with_panel(panel)

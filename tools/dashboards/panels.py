"""Defines the kinds of panels on the dashboards, each with the same look.

A panel has a title and a unit, a description of their meaning, and steps: the values from which
its state is a warning or bad. Spans are columns of the grid's 24, heights rows of 30 pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table
from grafana_foundation_sdk.builders import timeseries as lines
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from tools.dashboards.queries import Query, live_recall

SOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")

GOOD: Final = "green"
WARNING: Final = "orange"
BAD: Final = "red"

Steps: TypeAlias = Sequence[tuple[float | None, str]]
"""(value, colour): the colour applies from the value on; the first step has no value."""

AnyPanel: TypeAlias = lines.Panel | stat.Panel | table.Panel

PLAIN: Final[Steps] = ((None, "blue"),)
NONE_WANTED: Final[Steps] = ((None, GOOD), (1e-9, BAD))
"""Good at zero, bad above."""


_NOTHING: Final = "none"
_NOT_A_NUMBER: Final = models.SpecialValueMap(
    models.DashboardSpecialValueMapOptions(
        models.SpecialValueMatch.NA_N, models.ValueMappingResult(text=_NOTHING, color="text")
    )
)
"""Shown for a share of no queries, instead of NaN in the worst colour."""


def rising(warning: float, bad: float) -> Steps:
    """Return steps: good below `warning`, bad from `bad` on."""
    return ((None, GOOD), (warning, WARNING), (bad, BAD))


def falling(bad: float, warning: float) -> Steps:
    """Return steps: bad below `bad`, good from `warning` on."""
    return ((None, BAD), (bad, WARNING), (warning, GOOD))


def lines_at(*steps: tuple[float, str]) -> Steps:
    """Return steps that draw lines at values, without a colour below them."""
    return ((None, "transparent"), *steps)


def timeseries(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    span: int = 8,
    height: int = 8,
    steps: Steps = (),
    stacked: bool = False,
    colors: Mapping[str, str] | None = None,
    highest: float | None = None,
    lowest: float | None = 0,
    decimals: int | None = None,
) -> lines.Panel:
    """Return a panel of lines over time, or of a stacked area; steps are dashed lines."""
    mode = kinds.StackingMode.NORMAL if stacked else kinds.StackingMode.NONE
    panel = (
        lines.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .targets([_target(query, number) for number, query in enumerate(queries)])
        .unit(unit)
        .span(span)
        .height(height)
        .line_width(1 if stacked else 2)
        .fill_opacity(45 if stacked else 8)
        .gradient_mode(kinds.GraphGradientMode.NONE if stacked else kinds.GraphGradientMode.OPACITY)
        .show_points(kinds.VisibilityMode.NEVER)
        .stacking(common.StackingConfig().mode(mode).group("A"))
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .legend(
            common.VizLegendOptions()
            .display_mode(kinds.LegendDisplayMode.LIST)
            .placement(kinds.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs([])
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(kinds.TooltipDisplayMode.MULTI)
            .sort(kinds.SortOrder.DESCENDING)
        )
    )
    if lowest is not None:
        panel.min(lowest)
    if highest is not None:
        panel.max(highest)
    if decimals is not None:
        panel.decimals(decimals)
    if steps:
        dashed = common.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.DASHED)
        panel.thresholds(_thresholds(steps)).thresholds_style(dashed)
    for name, color in (colors or {}).items():
        fixed = {"mode": "fixed", "fixedColor": color}
        panel.override_by_name(name, [models.DynamicConfigValue(id_val="color", value=fixed)])
    return panel


def number(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str,
    span: int = 4,
    height: int = 4,
    steps: Steps = PLAIN,
    decimals: int | None = None,
    now: bool = False,
) -> stat.Panel:
    """Return a panel with the newest value over its recent course; `now` omits the course."""
    target = _target(query, 0)
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .with_target(target.instant() if now else target)
        .unit(unit)
        .span(span)
        .height(height)
        .no_value(_NOTHING)
        .mappings([_NOT_A_NUMBER])
        .thresholds(_thresholds(steps))
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .color_mode(kinds.BigValueColorMode.VALUE)
        .graph_mode(kinds.BigValueGraphMode.NONE if now else kinds.BigValueGraphMode.AREA)
        .text_mode(kinds.BigValueTextMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )
    if decimals is not None:
        panel.decimals(decimals)
    return panel


def live_recall_now(span: int = 4) -> stat.Panel:
    """Return the panel of the present live recall."""
    return number(
        "Live recall",
        "Of the true nearest neighbours of sampled queries, the share that answers held in the "
        "last hour; the worst collection.",
        Query(f"min({live_recall('1h')})"),
        unit="percentunit",
        span=span,
        steps=falling(0.9, 0.95),
    )


def rows(
    title: str,
    description: str,
    query: Query,
    *,
    columns: Mapping[str, str],
    units: Mapping[str, str] | None = None,
    span: int = 12,
    height: int = 8,
) -> table.Panel:
    """Return a table of the newest values; `columns` maps labels and Value to ordered headings."""
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .with_target(_target(query, 0).instant().format(PromQueryFormat.TABLE))
        .span(span)
        .height(height)
        .with_transformation(
            models.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True},
                    "indexByName": {name: place for place, name in enumerate(columns)},
                    "renameByName": dict(columns),
                },
            )
        )
    )
    for heading, unit in (units or {}).items():
        panel.override_by_name(heading, [models.DynamicConfigValue(id_val="unit", value=unit)])
    return panel


def _target(query: Query, number: int) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .datasource(SOURCE)
        .expr(query.expression)
        .legend_format(query.name)
        .ref_id(chr(ord("A") + number))
        .exemplar(query.exemplars)
        .range()
    )


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    return (
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=color) for value, color in steps])
    )

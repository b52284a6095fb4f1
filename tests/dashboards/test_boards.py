"""Tests the dashboards' JSON: current, valid, well laid out, with metrics that exist."""

from __future__ import annotations

import copy

import pytest

from tests.dashboards import boards, names, schema
from tools.dashboards.boards import FOLDER, rendered

EACH = pytest.mark.parametrize("board", boards.read(), ids=lambda board: board.name)


def test_the_files_are_current() -> None:
    """The chart's files are current; otherwise run `make dashboards`."""
    assert {path.name: path.read_text() for path in FOLDER.glob("*.json")} == dict(rendered())


@EACH
def test_the_json_follows_the_schema(board: boards.Board) -> None:
    """No field is unknown to Grafana's schema or of another type."""
    assert schema.faults(boards.without_open_fields(board.spec)) == []


def test_the_schema_finds_faults() -> None:
    """An unknown field, a wrong type and an unknown colour mode are each named."""
    sound = boards.without_open_fields(boards.read()[0].spec)
    panel = next(n for n, one in enumerate(sound["panels"]) if one["type"] == "timeseries")
    for path, value in (
        (("titel",), "x"),
        (("title",), 7),
        (("fieldConfig", "defaults", "color", "mode"), "rainbow"),
        (("gridPos", "w"), "8"),
        (("fieldConfig", "defaults", "custom", "lineWith"), 2),
    ):
        broken = copy.deepcopy(sound)
        place = broken["panels"][panel]
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        assert len(schema.faults(broken)) == 1, path


@EACH
def test_every_panel_describes_itself(board: boards.Board) -> None:
    """Each panel has a unique title, a description, a unit, and names for several lines."""
    titles = [panel.title for panel in board.panels]
    assert len(titles) == len(set(titles))
    for panel in board.panels:
        if panel.kind == "row":
            continue
        assert panel.spec["description"].endswith("."), panel.title
        assert panel.kind == "table" or panel.spec["fieldConfig"]["defaults"]["unit"], panel.title
        if panel.kind == "timeseries":
            assert all(legend for _, legend in panel.queries), panel.title


@EACH
def test_a_missing_number_is_not_shown_as_nan(board: boards.Board) -> None:
    """A share of no queries is 0 / 0: the panel shows "none", not the worst colour."""
    for panel in board.panels:
        if panel.kind == "stat":
            defaults = panel.spec["fieldConfig"]["defaults"]
            (mapping,) = defaults["mappings"]
            assert mapping["options"]["match"] == "nan", panel.title
            assert mapping["options"]["result"]["text"] == defaults["noValue"] == "none"


@EACH
def test_the_grid_is_full_and_free_of_overlaps(board: boards.Board) -> None:
    """Every cell of the page belongs to a single panel, so Grafana moves none."""
    cells = [
        (column, line)
        for place in (panel.spec["gridPos"] for panel in board.panels)
        for column in range(place["x"], place["x"] + place["w"])
        for line in range(place["y"], place["y"] + place["h"])
    ]
    height = max(line for _, line in cells) + 1
    assert sorted(cells) == [(column, line) for column in range(24) for line in range(height)]
    assert sum(panel.kind != "row" for panel in board.panels) <= 15


@EACH
def test_metrics_exist_and_are_of_the_chosen_release(board: boards.Board) -> None:
    """Each metric is in docs/metrics.md, and each selector narrows to namespace and release."""
    expressions = [query for panel in board.panels for query, _ in panel.queries]
    expressions += board.annotations.values()
    for expression in expressions:
        named = names.metrics(expression)
        assert named <= names.documented(), expression
        for name in named:
            chosen = f'{name}{{namespace=~"$namespace", release=~"$release"'
            assert expression.count(chosen) == expression.count(name), expression


def test_names_are_found_in_expressions() -> None:
    """Labels, their values and recorded series are not taken for metrics."""
    expression = 'a:simile_x:b + sum by (code) (rate(simile_y_total{route="simile_z"}[5m]))'
    assert names.metrics(expression) == {"simile_y_total"}
    assert names.recorded(expression) == {"a:simile_x:b"}


def test_addresses_are_stable() -> None:
    """Each dashboard has its own uid, by which others link to it."""
    uids = {board.name: board.spec["uid"] for board in boards.read()}
    assert uids == {name: f"simile-{name}" for name in uids}

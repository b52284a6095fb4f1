"""Evaluates every expression of dashboards and rules on a Prometheus that scrapes Simile."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from typing import Final

import pytest

from tests.dashboards import boards, names
from tests.dashboards.observed import Observed, observed
from tests.dashboards.test_rules import EVERY
from tests.support.prometheus import require_prometheus
from tests.support.rabbitmq import Node
from tests.support.system import LIGHT

LOAD_SECONDS: Final = 24.0
SETTLING_SECONDS: Final = 3.0
"""Time for the last scrapes, and for rules evaluated on them."""

WITHOUT_DATA: Final = {"GPU": "a CPU has no device whose memory could fill up"}
"""Panels that are empty here, with the reason."""


@pytest.fixture(scope="module")
def watched(rabbitmq: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """Yield a system that has answered queries of all kinds, and opened a second index version."""
    require_prometheus()
    folder = tmp_path_factory.mktemp("watched")
    with observed(rabbitmq, folder, per_class=4, scrape_interval="1s", embedder=LIGHT) as running:
        asyncio.run(running.load(LOAD_SECONDS, clients=8, copies=3))
        time.sleep(SETTLING_SECONDS)
        yield running


def _values(watched: Observed, expression: str) -> list[float]:
    """Return every number of the expression during the load."""
    now = time.time()
    asked = boards.with_values(expression, "5s")
    found = watched.prometheus.query_range(asked, start=now - 4 * LOAD_SECONDS, end=now, step=1)
    return [value for series in found for _, value in series.points if not math.isnan(value)]


@pytest.mark.parametrize(
    ("title", "expression"),
    [
        pytest.param(panel.title, expression, id=f"{board.name}: {panel.title}: {legend}")
        for board in boards.read()
        for panel in board.panels
        for expression, legend in panel.queries
    ],
)
def test_a_panel_has_data(watched: Observed, title: str, expression: str) -> None:
    """A panel's query is valid, and has values that the load caused."""
    assert bool(_values(watched, expression)) == (title not in WITHOUT_DATA)


@pytest.mark.parametrize(
    "expression", {text for board in boards.read() for text in board.annotations.values()}
)
def test_an_annotation_marks_what_happened(watched: Observed, expression: str) -> None:
    """The start of the services and the swap of the index are annotated."""
    assert _values(watched, expression)


@pytest.mark.parametrize("label", ["namespace", "release", "pod"])
def test_the_scrape_sets_the_labels_that_dashboards_need(watched: Observed, label: str) -> None:
    """Every series of every process has the labels that variables and legends use."""
    kinds = watched.prometheus.query(f"count by ({label}) ({{__name__=~'simile_.+'}})")
    assert all(one.labels.get(label) for one in kinds)


@pytest.mark.parametrize("rule", EVERY, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_has_what_it_needs(watched: Observed, rule: dict[str, str]) -> None:
    """Each rule is valid; recorded series have values; series of alerts exist."""
    name = rule.get("alert") or rule["record"]
    (evaluated,) = [one for one in watched.prometheus.rules() if one["name"] == name]
    assert (evaluated["health"], evaluated.get("lastError")) == ("ok", None)
    needed = {name} if "record" in rule else names.metrics(rule["expr"])
    needed |= names.recorded(rule["expr"])
    assert {one for one in needed if not _values(watched, one)} == set()

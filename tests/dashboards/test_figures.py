"""Dashboards, rules, `simile top` and the status page mean the same by a query and its stages."""

from __future__ import annotations

import json
import re
from pathlib import Path

from services import upload
from services.shared.telemetry import metric_names
from tests.dashboards import boards
from tests.dashboards.observed import RULES
from tools import reference
from tools.dashboards.colors import STAGES
from tools.dashboards.queries import QUERIES


def test_a_query_is_one_of_the_same_routes_everywhere() -> None:
    """The pattern of dashboards and rules takes the routes that the code counts, and no other."""
    (pattern,) = re.findall('route=~"(.+)"', QUERIES)
    (package,) = upload.__path__
    api = json.loads((Path(package) / "openapi.json").read_text())
    assert {
        route for route in api["paths"] if re.fullmatch(pattern, route)
    } == metric_names.QUERY_ROUTES
    texts = [RULES.read_text(), *(path.read_text() for path in boards.FILES)]
    found = {one for text in texts for one in re.findall(r'route=~\\?"(.+?)\\?"', text)}
    assert found == {pattern}


def test_stages_come_in_the_same_order_everywhere() -> None:
    """As a query walks, on the page of metrics, in colours, in terminals and on the status page."""
    page = (reference.DOCS / "metrics.md").read_text(encoding="utf-8")
    documented = re.findall(
        r"^\| `(\w+)` \| (?:upload|embedder|searcher|between) ", page, re.MULTILINE
    )
    assert documented == list(metric_names.STAGES) == list(STAGES)

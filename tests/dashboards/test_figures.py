"""Tests that dashboards, rules, `simile top` and the status page define queries alike."""

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


def test_queries_have_the_same_routes_everywhere() -> None:
    """The pattern of dashboards and rules matches exactly the routes that the code counts."""
    (pattern,) = re.findall('route=~"(.+)"', QUERIES)
    (package,) = upload.__path__
    api = json.loads((Path(package) / "openapi.json").read_text())
    assert {
        route for route in api["paths"] if re.fullmatch(pattern, route)
    } == metric_names.QUERY_ROUTES
    texts = [RULES.read_text(), *(path.read_text() for path in boards.FILES)]
    found = {one for text in texts for one in re.findall(r'route=~\\?"(.+?)\\?"', text)}
    assert found == {pattern}


def test_stages_have_the_same_order_everywhere() -> None:
    """Stages have the order of a query in metrics, colours, terminals and the status page."""
    page = (reference.DOCS / "metrics.md").read_text(encoding="utf-8")
    documented = re.findall(
        r"^\| `(\w+)` \| (?:upload|embedder|searcher|between) ", page, re.MULTILINE
    )
    assert documented == list(metric_names.STAGES) == list(STAGES)

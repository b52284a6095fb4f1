"""Reads the dashboards back from the JSON in the chart."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tools.dashboards.boards import FOLDER

FILES: Final = sorted(FOLDER.glob("*.json"))


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel, or the heading of a row."""

    kind: str
    title: str
    spec: Mapping[str, Any]

    @property
    def queries(self) -> Sequence[tuple[str, str]]:
        """Return (expression, legend) of each query."""
        targets = self.spec.get("targets", ())
        return [(target["expr"], target.get("legendFormat", "")) for target in targets]


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard."""

    name: str
    spec: Mapping[str, Any]

    @property
    def panels(self) -> Sequence[Panel]:
        """Return every panel, in the order of the page."""
        return [Panel(one["type"], one["title"], one) for one in self.spec["panels"]]

    @property
    def annotations(self) -> Mapping[str, str]:
        """Return name -> expression."""
        return {one["name"]: one["expr"] for one in self.spec["annotations"]["list"]}


def read() -> Sequence[Board]:
    """Return every dashboard of the chart."""
    return [Board(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in FILES]


def with_values(expression: str, window: str) -> str:
    """Return the expression with Grafana's variables replaced: all namespaces and releases."""
    filled = re.sub(r"\$(namespace|release)\b", ".*", expression)
    return filled.replace("$__rate_interval", window)


def without_open_fields(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dashboard without the datasource's own fields, where the schema is open."""
    closed = copy.deepcopy(dict(spec))
    for annotation in closed["annotations"]["list"]:
        for name in ("step", "titleFormat", "textFormat"):
            del annotation[name]
    return closed

"""Writes the tables of values in the chart's README."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from tools.chart import values

_BLOCK: Final = re.compile(
    r"(?P<start><!-- generated: values -->\n).*?(?P<end><!-- end -->)", re.DOTALL
)


def with_values(
    page: str,
    defaults: Mapping[str, Any],
    paths: Iterable[values.Path],
    comments: Mapping[values.Path, str],
) -> str:
    """Return the page with new tables, one for each part of the chart."""
    tables: dict[str, list[str]] = {}
    for path in paths:
        section = path[0] if isinstance(defaults[path[0]], dict) and len(path) > 1 else ""
        shown = f"`{json.dumps(_at(defaults, path))}`".replace("|", "\\|")
        meaning = comments[path].replace("|", "\\|").replace("<", "&lt;")
        tables.setdefault(section, []).append(f"| `{'.'.join(path)}` | {shown} | {meaning} |")
    parts = [
        "\n".join([f"### {section or 'Everything'}", "", "| value | default | meaning |",
                   "| --- | --- | --- |", *rows])
        for section, rows in sorted(tables.items(), key=lambda table: _order(defaults, table[0]))
    ]  # fmt: skip
    body = "\n\n".join(parts)
    return _BLOCK.sub(lambda block: f"{block['start']}\n{body}\n\n{block['end']}", page)


def _order(defaults: Mapping[str, Any], section: str) -> int:
    return list(defaults).index(section) if section else -1


def _at(defaults: Mapping[str, Any], path: values.Path) -> Any:
    found: Any = defaults
    for key in path:
        found = found[key]
    return found

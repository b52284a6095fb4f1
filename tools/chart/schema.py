"""Makes values.schema.json from values.schema.yaml, the settings, and comments in values.yaml."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tools.chart import values
from tools.chart.settings import Setting


def complete(
    source: dict[str, Any],
    found: Iterable[Setting],
    comments: Mapping[values.Path, str],
    defaults: Mapping[str, Any],
) -> dict[str, Any]:
    """Make the strict schema: objects closed, values described and required, settings added."""
    properties = source["properties"]
    for setting in found:
        section = properties if setting.section == "shared" else _inside(properties, setting)
        section.setdefault(setting.value_name, setting.schema())
    closed: dict[str, Any] = _closed(source)
    _describe(closed["properties"], comments, (), closed["definitions"])
    _require(closed, defaults, closed["definitions"])
    return closed


def _inside(properties: dict[str, Any], setting: Setting) -> dict[str, Any]:
    inner: dict[str, Any] = properties[setting.section]["properties"]
    return inner


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _closed(part) for key, part in schema.items()}
    if isinstance(made.get("properties"), dict) and "type" in made:
        made.setdefault("additionalProperties", False)
    return made


def _describe(
    properties: dict[str, Any],
    comments: Mapping[values.Path, str],
    above: values.Path,
    definitions: dict[str, Any],
) -> None:
    for key, part in properties.items():
        path = (*above, key)
        # Draft 7 ignores keys beside a $ref, so the reference becomes part of an allOf.
        if path in comments and "$ref" in part:
            properties[key] = {"allOf": [part], "description": comments[path]}
        elif path in comments:
            properties[key] = {"description": comments[path], **part}
        inner = values.resolve(part, definitions)
        if "$ref" in part and values.is_section(inner):
            inner = {**inner, "properties": dict(inner["properties"])}
            properties[key] = inner
        if values.is_section(inner):
            _describe(properties[key].get("properties", {}), comments, path, definitions)


def _require(
    section: dict[str, Any], defaults: Mapping[str, Any], definitions: dict[str, Any]
) -> None:
    """Require each value that a template needs, since Helm removes null values.

    Lists, maps and nullable values are not required: templates treat their absence as empty.
    """
    required = []
    for key, default in defaults.items():
        inner = values.resolve(section["properties"][key], definitions)
        if values.is_section(inner):
            _require(inner, default, definitions)
        optional = isinstance(default, list | dict | None) or "null" in inner.get("type", "")
        if values.is_section(inner) or not optional:
            required.append(key)
    if required:
        section["required"] = required

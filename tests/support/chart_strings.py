"""Fills every text of the chart's values with one string, and reads YAML as Kubernetes' Go does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import jsonschema
import yaml

from tools.chart import values
from tools.chart.manifests import CHART

SCHEMA: Final[dict[str, Any]] = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS: Final[dict[str, Any]] = yaml.safe_load((CHART / "values.yaml").read_text())

_LISTS_AND_MAPS: Final[Mapping[str, Callable[[str], Any]]] = {
    "affinity": lambda text: {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": text}]
        }
    },
    "behavior": lambda text: {"scaleUp": {"selectPolicy": text}},
    "brokerTo": lambda text: [{"ipBlock": {"cidr": text}}],
    "collections": lambda text: [{"name": "pictures", "folder": text}],
    "dnsConfig": lambda text: {"searches": [text]},
    "extraContainers": lambda text: [{"name": text, "image": text}],
    "extraEgress": lambda text: [{"to": [{"ipBlock": {"cidr": text}}]}],
    "extraEnv": lambda text: [{"name": "EXTRA", "value": text}],
    "extraEnvFrom": lambda text: [{"secretRef": {"name": text}}],
    "extraGroups": lambda text: [
        {"name": text, "rules": [{"alert": text, "expr": text, "annotations": {"note": text}}]}
    ],
    "extraIngress": lambda text: [{"from": [{"ipBlock": {"cidr": text}}]}],
    "extraObjects": lambda text: [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "extra"},
            "data": {"text": text},
        }
    ],
    "extraVolumeMounts": lambda text: [{"name": text, "mountPath": text, "subPath": text}],
    "extraVolumes": lambda text: [{"name": text, "emptyDir": {"medium": text}}],
    "filters": lambda text: [{"type": text}],
    "hostAliases": lambda text: [{"ip": text, "hostnames": [text]}],
    "initContainers": lambda text: [{"name": text, "image": text, "args": [text]}],
    "kedaFrom": lambda text: [{"podSelector": {"matchLabels": {"app": text}}}],
    "metricRelabelings": lambda text: [{"targetLabel": "note", "replacement": text}],
    "monitoringFrom": lambda text: [{"podSelector": {"matchLabels": {"app": text}}}],
    "parentRefs": lambda text: [{"name": text, "namespace": text}],
    "relabelings": lambda text: [{"targetLabel": "note", "replacement": text}],
    **dict.fromkeys(
        ("startupProbe", "readinessProbe", "livenessProbe"),
        lambda text: {"httpGet": {"path": text, "port": text}},
    ),
    "seLinuxOptions": lambda text: {"level": text},
    "strategy": lambda text: {"type": text},
    "tls": lambda text: [{"secretName": text, "hosts": [text]}],
    "tolerations": lambda text: [{"key": text, "operator": text, "value": text}],
    "topologySpreadConstraints": lambda text: [
        {"topologyKey": text, "maxSkew": 1, "whenUnsatisfiable": text}
    ],
    "uploadEgress": lambda text: [{"to": [{"ipBlock": {"cidr": text}}]}],
    "uploadFrom": lambda text: [{"ipBlock": {"cidr": text}}],
}
"""A function by a value's name: returns the value with a text in it, as Kubernetes takes it."""


def filled(text: str) -> Iterator[tuple[values.Path, Any]]:
    """Yield each value that may hold the text, by the schema, with the text in it."""
    for path in values.leaves(DEFAULTS, SCHEMA, SCHEMA["definitions"]):
        schema = _schema_of(path)
        value = _with_text(path[-1], schema, text)
        if value is not None and _fits(value, schema):
            yield path, value


def _schema_of(path: values.Path) -> dict[str, Any]:
    found = SCHEMA
    for key in path:
        found = values.resolve(found["properties"][key], SCHEMA["definitions"])
    return found


def _with_text(name: str, schema: Mapping[str, Any], text: str) -> Any:
    types = schema.get("type", [])
    if "object" in types or "array" in types:
        if name in _LISTS_AND_MAPS:
            return _LISTS_AND_MAPS[name](text)
        return [text] if "array" in types else {"key": text, text: text}
    return text if "string" in types else None


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    whole = {"definitions": SCHEMA["definitions"], "allOf": [schema]}
    return bool(jsonschema.Draft7Validator(whole).is_valid(value))


def put(given: dict[str, Any], path: values.Path, value: Any) -> dict[str, Any]:
    """Return a copy of the values in which `path` holds the value."""
    made: dict[str, Any] = json.loads(json.dumps(given))
    section = made
    for key in path[:-1]:
        section = section.setdefault(key, {})
    section[path[-1]] = value
    return made


def replaced(found: Any, old: str, new: str) -> Any:
    """Return the object with one text replaced by another, in all keys and values."""
    if isinstance(found, dict):
        return {key.replace(old, new): replaced(part, old, new) for key, part in found.items()}
    if isinstance(found, list):
        return [replaced(part, old, new) for part in found]
    return found.replace(old, new) if isinstance(found, str) else found


class GoLoader(yaml.CSafeLoader):
    """Reads YAML as Kubernetes' Go does: y is a boolean, 1e3 a number, and keys are unique."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 (PyYAML's signature)
        """Raise ConstructorError where a mapping repeats a key."""
        keys = [key.value for key, _ in node.value]
        if len({*keys}) < len(keys):
            problem = f"a mapping repeats a key of {keys}"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


GoLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:y|Y|n|N)$"), list("yYnN"))
GoLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)  # fmt: skip

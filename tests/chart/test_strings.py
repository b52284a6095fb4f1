"""Tests that every string of the values reaches its object unchanged, whatever YAML makes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import yaml

from tests.support import chart_strings as strings
from tests.support import charts
from tools.chart import values
from tools.chart.manifests import CHART, Manifest
from tools.chart.programs import helm, run

MARKER: Final = "zqmarkerqz"
TEXTS: Final = (
    "2024", "true", "y", "null", "1e3", "0x10", "a # b", "cats, dogs", "2024: summer", "- a",
    "{a: b}", "*a", 'say "hi"', "it's back\\slash", "$(HOME) $5", "grün 日本 \N{DOG FACE}",
    "two\nlines",
)  # fmt: skip
THEIRS: Final[dict[str, Any]] = {"serviceAccount": {"create": False}}
"""Two accounts of the same name would be refused."""
EVERYTHING: Final[dict[str, Any]] = {
    "imageMaxBytes": 15728640,
    "broker": {"external": {"existingSecret": "a", "managementUrlKey": "b"}},
    "storage": {"index": {"mode": "copy"}, "images": {"existingClaim": "c"}},
    "upload": {
        "apiKeys": {"existingSecret": "d"},
        "ingress": {"enabled": True, "hosts": ["a.example"]},
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "e"}]},
        "autoscaling": {"enabled": True},
        "service": {"type": "LoadBalancer"},
    },
    "embedder": {"gpu": {"enabled": True}, "autoscaling": {"mode": "keda"}, **THEIRS},
    "searcher": THEIRS,
    "index": {**THEIRS, "collections": [{"name": "pictures"}], "schedule": "@daily"},
    "monitoring": {
        "podMonitor": {"enabled": True},
        "rules": {"enabled": True},
        "dashboards": {"enabled": True},
    },
}
"""Values that render every object but those of the chart's own brokers."""
DEV: Final[dict[str, Any]] = {
    "broker": {"mode": "dev"},
    "upload": {"allowAnonymous": True, "service": {"type": "LoadBalancer"}},
    "embedder": THEIRS,
    "searcher": THEIRS,
    "index": THEIRS,
    "monitoring": {"podMonitor": {"enabled": True}},
}
OF_EXTERNAL: Final = {
    ("broker", "tls", "existingSecret"),
    ("upload", "apiKeys", "existingSecret"),
}
"""Values that conflict with the other two sets."""
OPERATOR: Final[dict[str, Any]] = {**DEV, "broker": {"mode": "operator"}}
IN_FORM: Final = {
    # Quantities, durations and networks accept only strings of their form.
    "clusterIP", "copySize", "digest", "externalTrafficPolicy", "interval", "ipFamilies",
    "ipFamilyPolicy", "limits", "loadBalancerIP", "loadBalancerSourceRanges", "requests",
    "resources", "resourceName", "schedule", "scrapeTimeout", "size", "storageSize",
    "supplementalGroups",
}  # fmt: skip


def _rendered(
    given: Mapping[str, Any], folder: Path, *options: str, release: str = "simile"
) -> list[Manifest]:
    file = folder / "values.yaml"
    file.write_text(json.dumps(given, ensure_ascii=False), encoding="utf-8")
    text = run(helm(), "template", release, CHART, "--values", file, *options)
    # This loader is safe, and resolves more of YAML 1.1 than PyYAML's, as Kubernetes does.
    return [one for one in yaml.load_all(text, Loader=strings.GoLoader) if one]


def _expected(objects: Sequence[Manifest], text: str) -> Any:
    """Return the objects rendered with the marker, with the text in the marker's place.

    Kubernetes expands $(NAME) in variables and arguments, where the chart writes each $ twice.
    """
    found = strings.replaced(list(objects), MARKER, text)
    literal = text.replace("$", "$$")
    for workload in charts.workloads(found):
        for container in charts.containers(charts.pod_of(workload)):
            for variable in container.get("env", []):
                if "value" in variable and variable["name"].startswith("SIMILE_"):
                    variable["value"] = variable["value"].replace(text, literal)
            if container["name"] == "build":
                container["args"] = [one.replace(text, literal) for one in container["args"]]
    return found


def _comparable(objects: Any) -> str:
    """Return the objects as text, without hashes of the values."""
    text = json.dumps(objects, sort_keys=True, ensure_ascii=False, indent=1)
    text = re.sub(r'"checksum/\w+": "[0-9a-f]{64}"', '"checksum": ""', text)
    return re.sub(r'-index-(\w+)-[0-9a-f]{8}"', r'-index-\1"', text)


def _given(base: dict[str, Any], text: str, *, marked: bool = False) -> dict[str, Any]:
    """Return the base with the text, or the marker, in each value that accepts both."""
    markers = dict(strings.filled(MARKER))
    given = base
    for path, value in strings.filled(text):
        if path in markers and not (path in OF_EXTERNAL and base is not EVERYTHING):
            given = strings.put(given, path, markers[path] if marked else value)
    return given


@pytest.mark.parametrize("text", TEXTS)
def test_every_string_is_rendered_unchanged(text: str, tmp_path: Path) -> None:
    """Rendering with the text differs from rendering with a plain word only by that word."""
    marked = _rendered(_given(EVERYTHING, text, marked=True), tmp_path)
    found = _rendered(_given(EVERYTHING, text), tmp_path)
    assert _comparable(found) == _comparable(_expected(marked, text))
    assert MARKER in str(marked)


@pytest.mark.parametrize("text", ["2024", "true", "y", "1e3"])
@pytest.mark.parametrize("base", [DEV, OPERATOR], ids=["dev", "operator"])
def test_every_string_reaches_the_broker_unchanged(
    base: dict[str, Any], text: str, tmp_path: Path
) -> None:
    """The chart's own brokers get password, host and image unchanged."""
    marked = _rendered(_given(base, text, marked=True), tmp_path)
    found = _rendered(_given(base, text), tmp_path)
    assert _comparable(found) == _comparable(_expected(marked, text))
    for one in found:
        charts.accept(one, charts.NEWEST)


def test_kubernetes_accepts_every_permitted_string(tmp_path: Path) -> None:
    """Strings that YAML would read as numbers or booleans match the types of their fields."""
    for text in ("2024", "y"):
        for one in _rendered(_given(EVERYTHING, text), tmp_path):
            charts.accept(one, charts.NEWEST)


@pytest.mark.parametrize("name", ["2024", "true", "y", "null", "1e3", "0x10"])
def test_a_collection_may_have_any_name(name: str, tmp_path: Path) -> None:
    """Jobs are named after the collection, and builds get its name unchanged."""
    objects = _rendered({**EVERYTHING, "index": {**EVERYTHING["index"],
                         "collections": [{"name": name}]}}, tmp_path)  # fmt: skip
    for kind in ("Job", "CronJob"):
        (one,) = charts.of_kind(objects, kind)
        assert one["metadata"]["name"].startswith(f"simile-index-{name}")
        (container,) = charts.pod_of(one)["containers"]
        assert container["args"] == ["index", "build", f"/images/{name}", "--collection", name]


def test_a_quantity_may_be_a_number(tmp_path: Path) -> None:
    """Bytes are accepted as number and as string, and are never rendered as 2.1e+10."""
    for size in (21474836480, "21474836480"):
        found = _rendered(strings.put(DEV, ("storage", "index", "size"), size), tmp_path)
        (claim,) = charts.of_kind(found, "PersistentVolumeClaim")
        assert claim["spec"]["resources"]["requests"]["storage"] == "21474836480"


def test_no_string_is_left_out_of_these_checks() -> None:
    """Each string value takes the marker, except those with a restricted form."""
    tried = {path for path, _ in strings.filled(MARKER)}
    for path in values.leaves(strings.DEFAULTS, strings.SCHEMA, strings.SCHEMA["definitions"]):
        default = strings.DEFAULTS
        for key in path:
            default = default[key]
        if isinstance(default, str | list | dict) and path not in tried:
            assert path[-1] in IN_FORM or _is_a_choice(path), path


def _is_a_choice(path: values.Path) -> bool:
    schema = strings.SCHEMA
    for key in path:
        schema = values.resolve(schema["properties"][key], strings.SCHEMA["definitions"])
    return "enum" in schema


@pytest.mark.parametrize("release", ["y", "null"])
def test_a_release_may_have_any_name(release: str, tmp_path: Path) -> None:
    """Labels, names and references contain the names of release and namespace as strings."""
    found = _rendered(DEV, tmp_path, "--namespace", "2024", release=release)
    for one in found:
        charts.accept(one, charts.NEWEST)
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == release
        assert one["metadata"]["namespace"] == "2024"


@pytest.mark.parametrize("base", [EVERYTHING, DEV, OPERATOR], ids=["all", "dev", "operator"])
def test_a_list_or_map_may_be_null(base: dict[str, Any], tmp_path: Path) -> None:
    """Null is accepted as empty for tolerations, labels, requests and limits."""
    needed = {("upload", "ingress", "hosts"), ("upload", "httpRoute", "parentRefs"),
              ("index", "collections")}  # fmt: skip
    given = base
    for path in values.leaves(strings.DEFAULTS, strings.SCHEMA, strings.SCHEMA["definitions"]):
        default = strings.DEFAULTS
        for key in path:
            default = default[key]
        if isinstance(default, list | dict) and path not in needed:
            given = strings.put(given, path, None)
    objects = _rendered(given, tmp_path)
    for one in objects:
        charts.accept(one, charts.NEWEST)
    for service in charts.SERVICES:
        container = charts.pod_of(charts.the(objects, "Deployment", service))["containers"][0]
        gpu = {"limits": {"nvidia.com/gpu": 1}} if base is EVERYTHING else {}
        assert container["resources"] == (gpu if service == "embedder" else {})


@pytest.mark.parametrize(
    "path",
    [
        "upload.service.type",
        "upload.service.port",
        "upload.ingress",
        "embedder.autoscaling.mode",
        "image.pullPolicy",
        "broker",
    ],
)
def test_a_required_value_is_named_when_it_is_null(path: str) -> None:
    """Helm removes null values; the schema then names the missing value before any template."""
    given = json.loads(json.dumps(strings.DEFAULTS))
    *sections, key = path.split(".")
    section = given
    for name in sections:
        section = section[name]
    del section[key]
    with pytest.raises(jsonschema.ValidationError, match=f"'{key}' is a required property"):
        jsonschema.validate(given, strings.SCHEMA)


def test_helm_refuses_a_section_that_is_null(tmp_path: Path) -> None:
    """The schema refuses a null section before a template fails on it."""
    with pytest.raises(RuntimeError, match=r"missing propert.*ingress"):
        _rendered(strings.put(DEV, ("upload", "ingress"), None), tmp_path)

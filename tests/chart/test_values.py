"""Tests that settings, values, schema, README and k8s/ agree, and generated files are current."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.support import charts
from tools.chart import __main__ as chart
from tools.chart import settings, values
from tools.chart.manifests import CHART, K8S

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
TEXT = (CHART / "values.yaml").read_text()
DEFAULTS: dict[str, Any] = yaml.safe_load(TEXT)
LEAVES = list(values.leaves(DEFAULTS, SCHEMA, SCHEMA["definitions"]))
UNDERSCORED = {"global"}
"""Values that Helm adds to every chart, without a default here."""


@pytest.mark.parametrize("path", [path for path, _ in chart.of_the_chart()], ids=lambda it: it.name)
def test_the_chart_is_current(path: Path) -> None:
    """`make manifests` would not change the chart."""
    made = dict(chart.of_the_chart())[path]
    assert path.read_text(encoding="utf-8") == made, "run `make manifests`"


def test_the_manifests_are_current() -> None:
    """`make manifests` would not change, add or remove files in k8s/."""
    made = dict(chart.of_k8s())
    found = {path for folder in ("base", "components") for path in (K8S / folder).rglob("*.yaml")}
    assert found == set(made), "run `make manifests`"
    for path, content in made.items():
        assert path.read_text(encoding="utf-8") == content, f"run `make manifests`: {path}"


@pytest.mark.parametrize("section", settings.SECTIONS)
def test_every_setting_is_a_value(section: str) -> None:
    """Each setting of the code is a value of the same name, or is set by the chart."""
    kind = settings.SECTIONS[section]
    prefix = str(kind.model_config.get("env_prefix"))
    known = DEFAULTS if section == "shared" else DEFAULTS[section]
    for name in kind.model_fields:
        variable = f"{prefix}{name}".upper()
        assert variable in settings.WIRED or settings.camel(name) in known, (
            f"{variable} is no value of the chart: run `make manifests`"
        )


def test_variables_that_the_chart_sets_are_settings() -> None:
    """No template sets a variable that Simile does not read."""
    read = {
        f"{kind.model_config.get('env_prefix')}{name}".upper()
        for kind in settings.SECTIONS.values()
        for name in kind.model_fields
    }
    assert read >= settings.WIRED


def test_a_setting_reaches_its_container() -> None:
    """A value is in the environment of every container that reads it."""
    objects = charts.rendered("external")
    for component in charts.SERVICES:
        (container,) = charts.pod_of(charts.the(objects, "Deployment", component))["containers"]
        assert charts.environment(container)["SIMILE_IMAGE_MAX_BYTES"] == "15728640"
        assert charts.environment(container)["SIMILE_DRAIN_TIMEOUT_SECONDS"] == "32.5"
        assert "OTEL_EXPORTER_OTLP_ENDPOINT" in charts.environment(container)
    (upload,) = charts.pod_of(charts.the(objects, "Deployment", "upload"))["containers"]
    assert charts.environment(upload)["SIMILE_UPLOAD_QUERY_BY_URL"] == "true"
    origins = charts.environment(upload)["SIMILE_UPLOAD_CORS_ORIGINS"]
    assert origins == "https://shop.example,https://blog.example"
    (searcher,) = charts.pod_of(
        charts.the(charts.rendered("production"), "Deployment", "searcher")
    )["containers"]
    assert charts.environment(searcher)["SIMILE_SEARCHER_THREADS"] == "4"
    assert charts.environment(searcher)["SIMILE_SEARCHER_LIVE_RECALL_SHARE"] == "0.001"


def test_an_own_variable_replaces_that_of_the_chart() -> None:
    """Each variable is there once, as Kubernetes requires, and the user's value wins."""
    objects = charts.rendered("external")
    for workload in charts.workloads(objects):
        for container in charts.containers(charts.pod_of(workload)):
            assert len(charts.environment(container)) == len(container["env"])
    endpoints = {
        component: charts.environment(container)["OTEL_EXPORTER_OTLP_ENDPOINT"]
        for component in charts.SERVICES
        for container in charts.pod_of(charts.the(objects, "Deployment", component))["containers"]
    }
    all_of_them = "http://collector:4317"
    assert endpoints == {
        "upload": "http://nearer:4317", "embedder": all_of_them, "searcher": all_of_them,
    }  # fmt: skip
    (upload,) = charts.pod_of(charts.the(objects, "Deployment", "upload"))["containers"]
    assert charts.environment(upload)["SIMILE_ADMIN_HOST"] == "::"


def test_null_leaves_the_default_to_the_code() -> None:
    """A setting without a value is not in the environment."""
    by_chart = settings.WIRED | {"SIMILE_DRAIN_TIMEOUT_SECONDS", "SIMILE_UPLOAD_LAME_DUCK_SECONDS"}
    for component in charts.SERVICES:
        workload = charts.the(charts.rendered("minimal"), "Deployment", component)
        (container,) = charts.pod_of(workload)["containers"]
        assert charts.environment(container).keys() <= by_chart | {"HOME"}


def test_values_and_schema_know_the_same_names() -> None:
    """Each value is in the schema, each property of the schema has a default in the values."""

    def compare(given: dict[str, Any], schema: dict[str, Any]) -> None:
        properties = schema["properties"]
        assert given.keys() == properties.keys() - UNDERSCORED
        assert schema["additionalProperties"] is False
        for key, part in properties.items():
            inner = values.resolve(part, SCHEMA["definitions"])
            if key not in UNDERSCORED and values.is_section(inner):
                compare(given[key], inner)

    compare(DEFAULTS, SCHEMA)


def test_the_defaults_fit_the_schema() -> None:
    """The schema is valid, and accepts the chart's defaults."""
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(DEFAULTS, SCHEMA)


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("embedder", "maxBatchSize"), 0),
        (("embedder", "maxBatchSize"), "many"),
        (("embedder", "maxBatchsize"), 8),
        (("embedder", "model"), "resnet51"),
        (("broker", "mode"), "bitnami"),
        (("image", "tag"), "latest"),
        (("storage", "index", "subPath"), "../other"),
        (("searcher", "resources"), {"requests": {"cpu": "one"}}),
        (("upload", "apiKeys", "key"), "no file/of that name"),
        (("broker", "vhost"), "a # comment"),
        (("upload", "pdb", "minAvailable"), "half"),
        (("upload", "replicas"), -1),
        (("imageMaxBytes"), 1),
        (("extraEnv"), [{"value": "of nothing"}]),
        (("index", "schedule"), "every night"),
        (("fullnameOverride"), "my.simile"),
        (("nameOverride"), "n" * 41),
        (("commonLabels"), {"app.kubernetes.io/name": "shop"}),
        (("upload", "podLabels"), {"app.kubernetes.io/component": "front"}),
        (("searcher", "podLabels"), {"note": "no label has blanks"}),
    ],
    ids=str,
)
def test_the_schema_is_strict(path: tuple[str, ...], wrong: object) -> None:
    """Misspelt names, wrong types and numbers out of range are refused before any template."""
    given = json.loads(json.dumps(DEFAULTS))
    keys = (path,) if isinstance(path, str) else path
    section = given
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = wrong
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(given, SCHEMA)


def test_every_value_has_a_comment() -> None:
    """Each value has a comment, which the schema and the README repeat."""
    comments = values.comments(TEXT)
    assert [".".join(path) for path in LEAVES if not comments.get(path)] == []
    assert all(comments[path].endswith(".") for path in LEAVES)


def test_the_readme_shows_every_value() -> None:
    """The README has a row for each value that users set, and no other."""
    page = (CHART / "README.md").read_text()
    rows = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(".".join(path) for path in LEAVES)


def test_values_are_camel_case() -> None:
    """A value's name has no underscore and no dash, and begins with a lower-case letter."""
    assert all(key[0].islower() and key.isalnum() for path in LEAVES for key in path)

"""Tests that each scenario renders to valid objects of Kubernetes, KEDA and Prometheus."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import charts
from tools.chart import manifests
from tools.chart.manifests import CHART
from tools.chart.programs import helm, run

SCENARIO = pytest.mark.parametrize("scenario", charts.NAMES)

OLDEST = "1.27.0"
SIDECARS_SINCE = "1.29.0"


@SCENARIO
def test_helm_lints_it_strictly(scenario: str) -> None:
    """`helm lint --strict` reports only the missing icon."""
    values = [option for path in charts.VALUES[scenario] for option in ("--values", path)]
    assert "0 chart(s) failed" in run(helm(), "lint", "--strict", CHART, *values)


@SCENARIO
@pytest.mark.parametrize("version", [OLDEST, charts.NEWEST])
def test_kubernetes_accepts_every_object(scenario: str, version: str) -> None:
    """Each object matches its schema without unknown properties."""
    if scenario == "copy" and version == OLDEST:
        version = SIDECARS_SINCE
    for one in charts.rendered(scenario):
        charts.accept(one, version)


def test_an_unknown_property_of_a_custom_object_is_noticed() -> None:
    """A misplaced key in a custom object fails the check above."""
    one = charts.the(charts.rendered("keda"), "ScaledObject", "embedder")
    charts.accept(one, charts.NEWEST)
    misplaced = {**one, "spec": {**one["spec"], "queueName": "simile.embed"}}
    with pytest.raises(AssertionError):
        charts.accept(misplaced, charts.NEWEST)


@SCENARIO
def test_names_are_unique_and_short_enough(scenario: str) -> None:
    """Names are unique for each kind; a pod's name fits a label."""
    names = [(one["kind"], one["metadata"]["name"]) for one in charts.rendered(scenario)]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 63 for _, name in names)


def test_a_long_release_name_still_makes_valid_names() -> None:
    """The longest release name that Helm accepts leaves every name unique and short enough."""
    values = charts.SCENARIOS / "production.yaml"
    options = ("--set", "fullnameOverride=", "--namespace", "n" * 63)
    text = run(helm(), "template", "r" * 53, CHART, "--values", values, *options)
    found = [(one["kind"], one["metadata"]["name"]) for one in yaml.safe_load_all(text) if one]
    assert len(set(found)) == len(found)
    assert all(len(name) <= 63 for _, name in found)


def test_any_collections_have_builds_of_their_own() -> None:
    """Long names with a common start and odd ends get valid, unique names."""
    names = [*("c" * 61 + end for end in "12"), "odd_-_", "p" * 24 + "_" * 39]
    options = [f"index.collections[{place}].name={name}" for place, name in enumerate(names)]
    found = manifests.render(
        charts.SCENARIOS / "production.yaml", options=("--set", ",".join(options))
    )
    for kind, longest in (("CronJob", 52), ("Job", 63)):
        made = [one["metadata"]["name"] for one in charts.of_kind(found, kind)]
        assert len({*made}) == len(names)
        assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name) for name in made)
        assert all(len(name) <= longest for name in made)


def test_the_package_holds_what_templates_read(tmp_path: Any) -> None:
    """`helm package` includes every file that rendering needs."""
    run(helm(), "package", CHART, "--destination", tmp_path)
    (archive,) = tmp_path.glob("simile-*.tgz")
    values = charts.SCENARIOS / "production.yaml"
    assert run(helm(), "template", "simile", archive, "--values", values) == run(
        helm(), "template", "simile", CHART, "--values", values
    )


def test_promtool_accepts_the_rules(tmp_path: Any) -> None:
    """Promtool accepts the rules in the PrometheusRule."""
    (rule,) = charts.of_kind(charts.rendered("production"), "PrometheusRule")
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": rule["spec"]["groups"]}))
    done = subprocess.run(
        ["promtool", "check", "rules", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_yaml_is_tidy() -> None:
    """Yamllint finds nothing in values, schema, examples, overlays and rendered files."""
    root = CHART.parents[1]
    done = subprocess.run(
        [Path(sys.executable).with_name("yamllint"), "--strict",
         "--config-file", root / "tests/chart/yamllint.yaml",
         *sorted(CHART.glob("*.yaml")), *sorted(CHART.glob("examples/*.yaml")),
         CHART / "files", root / "k8s", charts.SCENARIOS],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout

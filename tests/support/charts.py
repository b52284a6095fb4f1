"""Renders the chart once for each scenario of tests/chart, and finds the objects of a rendering."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as prometheus

from tools.chart import manifests
from tools.chart.manifests import Manifest

SCENARIOS: Final = Path(__file__).resolve().parents[1] / "chart" / "scenarios"
EXAMPLES: Final = manifests.CHART / "examples"
VALUES: Final[Mapping[str, Sequence[Path]]] = {
    **{path.stem: [path] for path in sorted(SCENARIOS.glob("*.yaml"))},
    "example-dev": [EXAMPLES / "dev.yaml"],
    "example-production": [EXAMPLES / "production.yaml"],
    "example-gpu": [EXAMPLES / "production.yaml", EXAMPLES / "gpu.yaml"],
}
"""The values files of each scenario, later ones first: the tests' own and the chart's examples."""
NAMES: Final = tuple(VALUES)

SERVICES: Final = ("upload", "embedder", "searcher")
_WORKLOADS: Final = ("Deployment", "StatefulSet", "Job", "CronJob", "Pod")

NEWEST: Final = "1.37.0"

_CUSTOM: Final[dict[str, Any]] = {
    "ScaledObject": keda.ScaledObject,
    "TriggerAuthentication": keda.TriggerAuthentication,
    "PodMonitor": prometheus.PodMonitor,
    "ServiceMonitor": prometheus.ServiceMonitor,
    "PrometheusRule": prometheus.PrometheusRule,
}
_UNPUBLISHED: Final = {"HTTPRoute", "RabbitmqCluster"}
"""Kinds whose schema no package provides; separate tests check these."""

Container = dict[str, Any]


@cache
def rendered(scenario: str) -> Sequence[Manifest]:
    """Return every object of that scenario."""
    return manifests.render(*VALUES[scenario])


def accept(one: Manifest, version: str) -> None:
    """Check an object against that Kubernetes' schema, or its operator's definition, strictly."""
    _accept(json.dumps(one), version)


@cache  # renderings differ in a few objects only, and a check takes as long as a rendering
def _accept(text: str, version: str) -> None:
    one = json.loads(text)
    if one["kind"] in _CUSTOM:
        model = _CUSTOM[one["kind"]].model_validate(one)
        # The models ignore unknown fields, and so would the operator.
        assert model.model_dump(mode="json", by_alias=True, exclude_unset=True) == one
    elif one["kind"] not in _UNPUBLISHED:
        kubernetes_validate.validate(one, version, strict=True)


def of_kind(objects: Sequence[Manifest], kind: str, component: str | None = None) -> list[Manifest]:
    """Return the objects of a kind, and of a component if one is given."""
    return [
        one
        for one in objects
        if one["kind"] == kind and component in {None, component_of(one["metadata"])}
    ]


def component_of(metadata: Manifest) -> str | None:
    """Return the component of Simile that the label names."""
    component: str | None = metadata.get("labels", {}).get("app.kubernetes.io/component")
    return component


def the(objects: Sequence[Manifest], kind: str, component: str) -> Manifest:
    """Return the only object of its kind and component."""
    (one,) = of_kind(objects, kind, component)
    return one


def workloads(objects: Sequence[Manifest]) -> list[Manifest]:
    """Return every object that starts pods."""
    return [one for one in objects if one["kind"] in _WORKLOADS]


def template_of(workload: Manifest) -> Manifest:
    """Return the template (metadata and spec) of the pod that a workload starts."""
    match workload["kind"]:
        case "Pod":
            return workload
        case "CronJob":
            template: Manifest = workload["spec"]["jobTemplate"]["spec"]["template"]
        case _:
            template = workload["spec"]["template"]
    return template


def pod_of(workload: Manifest) -> Manifest:
    """Return the spec of the pod that a workload starts."""
    pod: Manifest = template_of(workload)["spec"]
    return pod


def containers(pod: Manifest) -> Iterator[Container]:
    """Yield every container of a pod, init containers first."""
    yield from pod.get("initContainers", [])
    yield from pod["containers"]


def environment(container: Container) -> dict[str, Any]:
    """Return the value of each variable, or the reference that the value comes from."""
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


def mounts(container: Container) -> dict[str, Manifest]:
    """Return the mounts by mount path."""
    return {one["mountPath"]: one for one in container["volumeMounts"]}

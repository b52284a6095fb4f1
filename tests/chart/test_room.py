"""Tests that the documented free resources equal those that the pods request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest
import yaml

from tests.support import charts
from tools.chart.manifests import K8S, ROOT, Manifest
from tools.chart.programs import kubectl, run

UNITS: Final = {"m": 1e-3, "Mi": 2**-10, "Gi": 1.0, "": 1.0}


def _number(quantity: str) -> float:
    """Return a quantity as cores or GiB."""
    digits = quantity.rstrip("mMGi")
    return float(digits) * UNITS[quantity.removeprefix(digits)]


def _room(workloads: Sequence[Manifest]) -> dict[str, float]:
    """Return the sum of requests and limits of a pod of each workload."""
    total: dict[str, float] = {}
    for workload in workloads:
        for container in charts.pod_of(workload)["containers"]:
            for kind in ("requests", "limits"):
                for resource, quantity in container["resources"][kind].items():
                    key = f"{kind}.{resource}"
                    total[key] = total.get(key, 0) + _number(str(quantity))
    return total


def _described(workloads: Sequence[Manifest]) -> str:
    room = {key: f"{amount:.3g}" for key, amount in _room(workloads).items()}
    return (
        f"{room['requests.cpu']} cores and {room['requests.memory']} GiB"
        f" (limits: {room['limits.cpu']} cores, {room['limits.memory']} GiB)"
    )


def test_the_example_fits_a_small_node() -> None:
    """The example fits half of 2 CPUs and 4 GiB, with room for an upgrade."""
    objects = charts.rendered("example-dev")
    room = _room(charts.workloads(objects))
    more = _room([charts.the(objects, "Deployment", name) for name in charts.SERVICES])
    job = _room(charts.of_kind(objects, "Job"))
    for resource, most in (("cpu", 1), ("memory", 2.5)):
        key = f"requests.{resource}"
        assert room[key] + more[key] + job[key] <= most
    for workload in charts.workloads(objects):
        for container in charts.pod_of(workload)["containers"]:
            assert _number(container["resources"]["requests"]["cpu"]) <= 0.1


def test_the_overlay_asks_for_as_little_as_the_example() -> None:
    """The overlay and the example for a single node have the same requests."""
    page = run(kubectl(), "kustomize", K8S / "overlays" / "dev")
    overlay = [one for one in yaml.safe_load_all(page) if one]
    example = [one for one in charts.rendered("example-dev") if one["kind"] != "Pod"]
    for key, amount in _room(charts.workloads(example)).items():
        assert _room(charts.workloads(overlay))[key] == pytest.approx(amount)


def test_the_readme_says_how_large_a_node_is_enough() -> None:
    """README and the Kubernetes page name the size of the node."""
    for page in (ROOT / "README.md", ROOT / "docs" / "kubernetes.md"):
        assert "2 CPUs and 4 GiB" in " ".join(page.read_text().split())


def test_the_docs_say_what_an_upgrade_needs() -> None:
    """The docs name requests and limits of the example plus a pod more of each service."""
    page = " ".join((ROOT / "docs" / "kubernetes.md").read_text().split())
    objects = [one for one in charts.rendered("example-dev") if one["kind"] != "Pod"]
    assert f"while its index is built it asks for {_described(charts.workloads(objects))}" in page
    services = [charts.the(objects, "Deployment", name) for name in charts.SERVICES]
    assert f"one pod more of each service is {_described(services)}" in page

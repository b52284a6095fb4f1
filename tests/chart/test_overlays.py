"""Tests that every overlay of k8s/ builds with kubectl's kustomize to consistent objects."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import yaml

from tests.support.charts import (
    NEWEST,
    SERVICES,
    accept,
    containers,
    environment,
    mounts,
    of_kind,
    pod_of,
    the,
    workloads,
)
from tools.chart.manifests import K8S, NAMESPACE, Manifest
from tools.chart.programs import kubectl, run

OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
OVERLAY = pytest.mark.parametrize("overlay", OVERLAYS)


@cache
def built(overlay: str) -> Sequence[Manifest]:
    """Return the objects that `kubectl apply -k` would send."""
    text = run(kubectl(), "kustomize", K8S / "overlays" / overlay)
    return [one for one in yaml.safe_load_all(text) if one is not None]


@OVERLAY
def test_kubernetes_accepts_every_object(overlay: str) -> None:
    """Each object matches its schema strictly, and is in the namespace of the overlay."""
    for one in built(overlay):
        accept(one, NEWEST)
        if one["kind"] != "Namespace":
            assert one["metadata"]["namespace"] == NAMESPACE


def test_the_base_and_each_component_build() -> None:
    """The base builds by itself; every component is used by an overlay."""
    assert run(kubectl(), "kustomize", K8S / "base")
    pages = (K8S / "overlays" / name / "kustomization.yaml" for name in OVERLAYS)
    used = "".join(page.read_text() for page in pages)
    for component in (K8S / "components").iterdir():
        assert f"components/{component.name}" in used


@OVERLAY
def test_no_overlay_loosens_a_pod(overlay: str) -> None:
    """Patched pods keep non-root, read-only root, limits and a version."""
    for workload in workloads(built(overlay)):
        pod = pod_of(workload)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert {volume["name"] for volume in pod["volumes"]} == {
            mount["name"] for container in containers(pod) for mount in container["volumeMounts"]
        }
        for container in containers(pod):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
            assert not container["image"].endswith(":latest")
            assert ":" in container["image"]
            if container["name"] == "searcher":
                assert mounts(container)["/data"]["readOnly"] is True


@OVERLAY
def test_secrets_and_claims_exist_or_are_listed(overlay: str) -> None:
    """Objects that pods refer to are in the overlay, or listed as required at its head."""
    objects = built(overlay)
    listed = (K8S / "overlays" / "production" / "kustomization.yaml").read_text()
    made = {one["metadata"]["name"] for kind in ("Secret", "PersistentVolumeClaim", "ConfigMap")
            for one in of_kind(objects, kind)}  # fmt: skip
    for name in _referred(objects):
        assert name in made or (overlay != "dev" and f" {name} " in listed)


def _referred(objects: Sequence[Manifest]) -> set[str]:
    names: set[str] = set()
    for workload in workloads(objects):
        pod = pod_of(workload)
        for volume in pod["volumes"]:
            names |= {volume.get("secret", {}).get("secretName")}
            names |= {volume.get("persistentVolumeClaim", {}).get("claimName")}
        for container in containers(pod):
            for value in environment(container).values():
                if isinstance(value, dict):
                    names |= {value.get("secretKeyRef", {}).get("name")}
    return {name for name in names if name is not None}


def test_dev_is_complete() -> None:
    """The dev overlay has a pod of each service, a broker and a sample, all restricted."""
    objects = built("dev")
    (namespace,) = of_kind(objects, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for service in SERVICES:
        # Without a number Kubernetes starts one pod.
        assert the(objects, "Deployment", service)["spec"].get("replicas", 1) == 1
    assert of_kind(objects, "StatefulSet", "broker")
    (job,) = of_kind(objects, "Job")
    assert pod_of(job)["containers"][0]["args"] == ["index", "build"]
    (upload,) = pod_of(the(objects, "Deployment", "upload"))["containers"]
    assert environment(upload)["SIMILE_UPLOAD_ALLOW_ANONYMOUS"] == "true"
    assert "SIMILE_UPLOAD_API_KEYS_FILE" not in environment(upload)
    (claim,) = of_kind(objects, "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_dev_finds_its_broker() -> None:
    """The Secret's URL names the Service that selects the broker's pod."""
    objects = built("dev")
    service = the(objects, "Service", "broker")
    secret = the(objects, "Secret", "broker")
    assert f"@{service['metadata']['name']}:5672/" in secret["stringData"]["url"]
    labels = the(objects, "StatefulSet", "broker")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()


def test_production_leaves_numbers_to_autoscalers() -> None:
    """Applying the overlay again resets no replica count; searchers share a volume for many."""
    objects = built("production")
    for service in ("upload", "embedder"):
        assert "replicas" not in the(objects, "Deployment", service)["spec"]
    assert the(objects, "Deployment", "searcher")["spec"]["replicas"] == 3
    (claim,) = of_kind(objects, "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert _target(objects) == {"name": "simile-upload", "port": {"name": "http"}}


def _target(objects: Sequence[Manifest]) -> Any:
    (ingress,) = of_kind(objects, "Ingress")
    return ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]


def test_gpu_embedders_run_on_gpus() -> None:
    """GPU embedders have the cuda image, a GPU limit, and no surge onto an absent GPU."""
    embedder = the(built("gpu"), "Deployment", "embedder")
    (container,) = pod_of(embedder)["containers"]
    assert container["image"] == "registry.example.com/simile-embedder:0.1.0-cuda"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert embedder["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert the(built("gpu"), "ScaledObject", "embedder")["spec"]["maxReplicaCount"] == 4

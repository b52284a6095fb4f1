"""Tests that conflicting values are refused with a sentence that names the remedy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from tests.support import charts
from tools.chart import manifests
from tools.chart.programs import helm, run

REFUSED: Mapping[str, tuple[str, str]] = {
    "no broker": ("broker.external.existingSecret=", "broker.external.existingSecret"),
    "nobody may ask": ("upload.allowAnonymous=false", "upload.apiKeys.existingSecret"),
    "keys that protect nothing": ("upload.apiKeys.existingSecret=keys", "Choose one"),
    "TLS where there is none": (
        "broker.mode=dev,broker.tls.existingSecret=ca",
        "broker.tls is for",
    ),
    "a certificate without its key": (
        "broker.tls.existingSecret=ca,broker.tls.certKey=tls.crt",
        "one without the other",
    ),
    "queries that outlive their pod": ("upload.deadlineSeconds=30", "drainTimeoutSeconds is 20"),
    "many nodes and a volume of one": (
        # A pod of each makes two already, and a build is a third.
        "storage.index.accessMode=ReadWriteOnce,searcher.replicas=1,upload.replicas=1",
        "storage.index.oneNode=true",
    ),
    "a collection without images": ("index.collections[0].name=birds", "storage.images.existing"),
    "two collections of one name": (
        "storage.images.existingClaim=all,index.sample=true,index.collections[0].name=sample",
        "Two of index.collections",
    ),
    "two collections whose jobs have one name": (
        "storage.images.existingClaim=all,index.collections[0].name=a-b,index.collections[1].name=a_b",
        "Two of index.collections",
    ),
    "a schedule for nothing": ("index.schedule=@daily", "index.collections names nothing"),
    "KEDA without management": ("embedder.autoscaling.mode=keda", "managementUrlKey"),
    "an HPA from nothing": (
        "embedder.autoscaling.mode=hpa,embedder.autoscaling.minReplicas=0",
        "can't start from nothing",
    ),
    "an HPA for GPUs": ("embedder.autoscaling.mode=hpa,embedder.gpu.enabled=true", "busy GPU"),
    "more embedders at least than at most": (
        "embedder.autoscaling.mode=hpa,embedder.autoscaling.minReplicas=20",
        "minReplicas is more than maxReplicas",
    ),
    "more uploads at least than at most": (
        "upload.autoscaling.enabled=true,upload.autoscaling.minReplicas=20",
        "upload.autoscaling.minReplicas",
    ),
    "a GPU left idle": ("embedder.gpu.enabled=true,embedder.device=cpu", "leaves them idle"),
    "a budget without a number": (
        "searcher.pdb.maxUnavailable=null",
        "searcher.pdb has neither",
    ),
    "a service account made twice": (
        "upload.serviceAccount.name=simile,searcher.serviceAccount.name=simile",
        "serviceAccount.create=false",
    ),
    "a node's port that nobody reaches": ("upload.service.nodePort=30080", "NodePort or"),
    "a load balancer that is none": (
        "upload.service.loadBalancerClass=internal",
        "upload.service.type=LoadBalancer",
    ),
    "an Ingress for no name": ("upload.ingress.enabled=true", "upload.ingress.hosts"),
    "a route without a Gateway": ("upload.httpRoute.enabled=true", "upload.httpRoute.parentRefs"),
}


@pytest.mark.parametrize(("values", "says"), REFUSED.values(), ids=REFUSED)
def test_impossible_combinations_are_refused(values: str, says: str) -> None:
    """Rendering fails, and the reason names the value to change."""
    with pytest.raises(RuntimeError, match="These values can't work together") as refused:
        manifests.render(charts.SCENARIOS / "minimal.yaml", options=("--set", values))
    assert says in str(refused.value)


@pytest.mark.parametrize("release", ["2nd", "shop.simile"])
def test_a_name_that_no_service_may_have_is_refused(release: str) -> None:
    """Helm accepts release names with a leading digit or dots; Service names can't have them."""
    command = ["template", release, str(manifests.CHART)]
    command += ["--values", str(charts.SCENARIOS / "minimal.yaml")]
    with pytest.raises(RuntimeError, match="Set fullnameOverride"):
        run(helm(), *command)
    assert run(helm(), *command, "--set", "fullnameOverride=second")


def test_all_problems_are_reported_at_once() -> None:
    """All three faults are in the message."""
    with pytest.raises(RuntimeError) as refused:
        manifests.render(options=("--set", "upload.ingress.enabled=true"))
    assert str(refused.value).count("\n- ") == 3


def test_sidecars_are_refused_where_kubernetes_lacks_them() -> None:
    """An older cluster would run the copying sidecar as an init container, and hang."""
    with pytest.raises(RuntimeError, match="sidecar containers"):
        manifests.render(charts.SCENARIOS / "copy.yaml", options=("--kube-version", "1.28.0"))
    assert manifests.render(charts.SCENARIOS / "copy.yaml", options=("--kube-version", "1.29.0"))


def test_one_node_may_share_a_volume_of_one_node() -> None:
    """A volume of one node is accepted when the values place all pods on that node."""
    assert charts.rendered("dev")


def test_the_schema_is_checked_before_any_template(tmp_path: Path) -> None:
    """Helm's schema check refuses a misspelt value, and names it."""
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"embedder": {"maxBatchsize": 8}}))
    with pytest.raises(RuntimeError, match="maxBatchsize"):
        manifests.render(charts.SCENARIOS / "minimal.yaml", file)

"""Tests that podman runs the deployed pods, except for features that it lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.images.cluster import objects
from tests.support.pods import Changes, Cluster

COMPONENTS = ("broker", "embedder", "index", "searcher", "upload")


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_pod_keeps_its_security_and_loses_its_references(tmp_path: Path, component: str) -> None:
    """Users, capabilities and the read-only root stay; Secrets and names become values."""
    cluster = Cluster(objects(), tmp_path)
    pod = cluster.pod(component, "some-pod", Changes({}, {"MORE": "1"}))
    (container,) = pod["spec"]["containers"]
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"]
    assert not security["allowPrivilegeEscalation"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["runAsUser"] > 0
    environment = {one["name"]: one["value"] for one in container["env"]}
    assert environment["MORE"] == "1"
    if component == "broker":
        assert environment["RABBITMQ_DEFAULT_PASS"]
    else:
        assert environment["SIMILE_REPLICA"] == "some-pod"
        assert environment.get("OPENBLAS_NUM_THREADS") == ("2" if component == "index" else None)
        assert "@simile-broker:5672/" in environment["SIMILE_AMQP_URL"]
    mounted = {one["name"] for one in container["volumeMounts"]}
    assert mounted == {one["name"] for one in pod["spec"]["volumes"]}
    assert all(Path(one["hostPath"]["path"]).is_dir() for one in pod["spec"]["volumes"])


def test_only_the_job_writes_the_index(tmp_path: Path) -> None:
    """Searchers and upload mount the same claim read-only."""
    cluster = Cluster(objects(), tmp_path)
    mounts = {
        component: mount.get("readOnly", False)
        for component in COMPONENTS
        for mount in cluster.pod(component, "p", Changes({}, {}))["spec"]["containers"][0][
            "volumeMounts"
        ]
        if mount["name"] == "index"
    }
    assert mounts == {"index": False, "searcher": True, "upload": True}

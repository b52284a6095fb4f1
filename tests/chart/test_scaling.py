"""Tests who sets the number of pods: an autoscaler, the values, or `kubectl scale`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import charts
from tests.support.charts import environment, pod_of, the
from tools.chart import manifests
from tools.chart.programs import helm, run


def test_keda_counts_waiting_and_unacked_images() -> None:
    """The trigger reads waiting and unacked messages over HTTP, with fallback and delays."""
    spec = the(charts.rendered("keda"), "ScaledObject", "embedder")["spec"]
    assert [trigger["metadata"]["queueName"] for trigger in spec["triggers"]] == [
        "simile.embed",
        "simile.embed.bulk",
    ]
    for trigger in spec["triggers"]:
        assert trigger["metadata"]["protocol"] == "http"
        assert trigger["metadata"]["excludeUnacknowledged"] == "false"
        assert trigger["metadata"]["mode"] == "QueueLength"
        assert trigger["metadata"]["host"] == "http://simile-broker.default.svc:15672"
        assert trigger["metricType"] == "AverageValue"
    assert spec["fallback"] == {"failureThreshold": 3, "replicas": 2}
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == 300


@pytest.mark.parametrize("scenario", ["keda", "gpu"])
def test_canaries_start_no_embedder(scenario: str) -> None:
    """Where embedders may be scaled to zero, upload sends no canaries, which would start one."""
    objects = charts.rendered(scenario)
    to_nothing = the(objects, "ScaledObject", "embedder")["spec"]["minReplicaCount"] == 0
    asks = {
        service: environment(container).get("SIMILE_CANARY_SECONDS")
        for service in charts.SERVICES
        for container in pod_of(the(objects, "Deployment", service))["containers"]
    }
    expected = "0" if to_nothing else None
    assert asks == {"upload": expected, "embedder": None, "searcher": None}
    assert to_nothing == (scenario == "keda")


def test_a_query_without_an_embedder_waits_for_keda() -> None:
    """Upload is configured for absent embedders and for their start-up time."""
    (container,) = pod_of(the(charts.rendered("keda"), "Deployment", "upload"))["containers"]
    polling = the(charts.rendered("keda"), "ScaledObject", "embedder")["spec"]["pollingInterval"]
    wait = float(environment(container)["SIMILE_UPLOAD_EMBEDDER_START_SECONDS"])
    assert wait > polling
    (container,) = pod_of(the(charts.rendered("gpu"), "Deployment", "upload"))["containers"]
    assert "SIMILE_UPLOAD_EMBEDDER_START_SECONDS" not in environment(container)


def _replicas(scenario: str, service: str) -> Any:
    return the(charts.rendered(scenario), "Deployment", service)["spec"].get("replicas")


def test_autoscalers_own_the_number_of_pods() -> None:
    """With an autoscaler, or with null in the values, an upgrade doesn't reset the number."""
    assert _replicas("keda", "embedder") is None
    assert _replicas("production", "embedder") is None
    assert _replicas("production", "upload") is None
    assert [_replicas("quiet", service) for service in charts.SERVICES] == [None] * 3


def test_an_unset_number_is_left_to_kubectl_scale() -> None:
    """By default no Deployment has a number, so an upgrade resets none."""
    for scenario in ("minimal", "example-dev"):
        assert [_replicas(scenario, service) for service in charts.SERVICES] == [None] * 3
    assert _replicas("production", "searcher") == 3


def _notes(*options: str) -> str:
    values = ("--values", charts.EXAMPLES / "dev.yaml", "--set", ",".join(options))
    printed = run(helm(), "install", "simile", manifests.CHART, "--dry-run=client", *values)
    return printed.partition("\nNOTES:\n")[2]


def test_the_notes_scale_what_the_values_leave_open() -> None:
    """NOTES show `kubectl scale` only for services without a number in the values."""
    scaled = "scale deployment/simile-{}"
    open_ = _notes("image.tag=1.2.3")
    assert all(scaled.format(service) in open_ for service in charts.SERVICES)
    assert "Simile 1.2.3" in open_
    fixed = _notes(*(f"{service}.replicas=2" for service in charts.SERVICES), "index.suspend=true")
    assert not any(scaled.format(service) in fixed for service in charts.SERVICES)
    assert "built now" in open_
    assert "built now" not in fixed

"""Tests the brokers that the chart creates: reachable, and configured for Simile's messages."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support import charts
from tests.support.charts import environment, of_kind, pod_of, the
from tools.chart import manifests

SCENARIO = pytest.mark.parametrize("scenario", charts.NAMES)


@SCENARIO
def test_only_similes_pods_reach_the_broker(scenario: str) -> None:
    """Simile's pods reach the broker that the chart creates, and its nodes reach each other."""
    objects = charts.rendered(scenario)
    brokers = of_kind(objects, "StatefulSet") + of_kind(objects, "RabbitmqCluster")
    policies = of_kind(objects, "NetworkPolicy", "broker")
    assert len(policies) == len(brokers)
    for broker, policy in zip(brokers, policies, strict=True):
        own = policy["spec"]["podSelector"]
        clients, *others = policy["spec"]["ingress"]
        assert clients["ports"] == [{"port": 5672, "protocol": "TCP"}]
        for service in (*charts.SERVICES, "index"):
            (rule,) = (one for one in the(objects, "NetworkPolicy", service)["spec"]["egress"]
                       if {"port": 5672, "protocol": "TCP"} in one["ports"])  # fmt: skip
            assert rule["to"] == [{"podSelector": own}]
        if broker["kind"] == "StatefulSet":
            assert own["matchLabels"].items() <= broker["spec"]["template"]["metadata"][
                "labels"].items()  # fmt: skip
            assert policy["spec"]["egress"] == []
        else:
            # The operator gives its pods this label.
            assert own == {"matchLabels": {"app.kubernetes.io/name": broker["metadata"]["name"]}}
            assert {"from": [{"podSelector": own}]} in others
            assert {"to": [{"podSelector": own}]} in policy["spec"]["egress"]


def test_a_rabbitmq_cluster_survives_a_node() -> None:
    """The operator gets three nodes with disks; every service uses the user that it creates."""
    objects = charts.rendered("production")
    (cluster,) = of_kind(objects, "RabbitmqCluster")
    assert cluster["apiVersion"] == "rabbitmq.com/v1beta1"
    assert cluster["spec"]["replicas"] == 3
    assert cluster["spec"]["persistence"]["storage"] == "10Gi"
    name = cluster["metadata"]["name"]
    for service in charts.SERVICES:
        (container,) = pod_of(the(objects, "Deployment", service))["containers"]
        variables = environment(container)
        assert variables["SIMILE_AMQP_URL"] == (
            f"amqp://$(BROKER_USER):$(BROKER_PASSWORD)@{name}:5672/%2F"
        )
        assert variables["BROKER_USER"]["secretKeyRef"]["name"] == f"{name}-default-user"


def test_brokers_of_the_chart_take_the_largest_image() -> None:
    """The chart raises RabbitMQ's message limit only when larger images are permitted."""
    large = ("--set", "imageMaxBytes=50000000")
    (dev,) = of_kind(manifests.render(charts.SCENARIOS / "dev.yaml", options=large), "ConfigMap",
                     "broker")  # fmt: skip
    (cluster,) = of_kind(
        manifests.render(charts.SCENARIOS / "keda.yaml", options=large), "RabbitmqCluster"
    )
    for text in (dev["data"]["90-simile.conf"], cluster["spec"]["rabbitmq"]["additionalConfig"]):
        assert "max_message_size = 51048576" in text.splitlines()
    assert "max_message_size" not in str(charts.rendered("dev"))


def test_the_dev_broker_opens_few_files(tmp_path: Path) -> None:
    """The broker lowers its limit of open files before it starts, and starts even if it can't."""
    (container,) = pod_of(the(charts.rendered("dev"), "StatefulSet", "broker"))["containers"]
    assert "ulimit -n 65536" in container["command"][-1]
    entry = tmp_path / "docker-entrypoint.sh"
    entry.write_text('#!/bin/sh\necho "$@" $(ulimit -n)\n')
    entry.chmod(0o755)
    started = subprocess.run(
        ["sh", "-c", 'ulimit -n 512; exec "$@"', "sh", *container["command"]],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert started.stdout.split() == ["rabbitmq-server", "512"]

"""What every rendered object must be like, whatever the values."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.shared.settings import SharedSettings
from tests.support import charts
from tests.support.charts import containers, environment, mounts, of_kind, pod_of, the
from tools.chart import manifests
from tools.chart.manifests import Manifest
from tools.chart.programs import helm, run

SCENARIO = pytest.mark.parametrize("scenario", charts.NAMES)
# A build's pod is not asked for its health: when it hangs, it is the embedders that do.
ASKED = ("Deployment", "StatefulSet")
DIGITS = re.compile(r"\d")


@SCENARIO
def test_pods_are_restricted(scenario: str) -> None:
    """Pods fit the restricted Pod Security standard, with nothing to write to but volumes."""
    for workload in charts.workloads(charts.rendered(scenario)):
        pod = pod_of(workload)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        allowed = {"name", "emptyDir", "persistentVolumeClaim", "secret", "configMap"}
        assert all(volume.keys() <= allowed for volume in pod["volumes"])
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "/tmp" in mounts(container)  # noqa: S108 (a mount)


@SCENARIO
def test_containers_have_requests_and_limits(scenario: str) -> None:
    """Each container says what it needs, and may not take more memory than that."""
    for workload in charts.workloads(charts.rendered(scenario)):
        for container in containers(pod_of(workload)):
            for kind in ("requests", "limits"):
                assert {"cpu", "memory"} <= container["resources"][kind].keys()


@SCENARIO
def test_images_have_a_version(scenario: str) -> None:
    """No image is `latest`, by name or by having no tag."""
    for workload in charts.workloads(charts.rendered(scenario)):
        for container in containers(pod_of(workload)):
            name, _, version = container["image"].rpartition(":")
            assert name
            assert "/" not in version
            assert version != "latest"
            assert DIGITS.search(version)


@SCENARIO
def test_services_are_asked_for_their_health(scenario: str) -> None:
    """Long-lived containers have three probes, none so impatient that a busy node restarts them."""
    for workload in charts.workloads(charts.rendered(scenario)):
        if workload["kind"] in ASKED:
            for container in pod_of(workload)["containers"]:
                ports = {port["name"] for port in container["ports"]}
                for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                    assert 3 <= container[probe]["timeoutSeconds"] <= 5
                    asked = container[probe].get("httpGet", container[probe].get("tcpSocket"))
                    assert asked["port"] in ports


@pytest.mark.parametrize("service", charts.SERVICES)
def test_readiness_and_liveness_ask_their_own_question(service: str) -> None:
    """/readyz decides on work, /livez on restarts, also at the start, on the admin port."""
    (container,) = pod_of(the(charts.rendered("minimal"), "Deployment", service))["containers"]
    asked = {name: container[f"{name}Probe"]["httpGet"] for name in
             ("startup", "readiness", "liveness")}  # fmt: skip
    assert asked["readiness"] == {"path": "/readyz", "port": "admin"}
    assert asked["startup"] == asked["liveness"] == {"path": "/livez", "port": "admin"}
    assert environment(container)["SIMILE_ADMIN_HOST"] == "0.0.0.0"  # noqa: S104 (in its pod)


@SCENARIO
def test_selectors_match_the_labels_of_their_pods(scenario: str) -> None:
    """Deployments, services, budgets, policies and autoscalers each find a workload."""
    objects = charts.rendered(scenario)
    labels = [
        charts.template_of(one)["metadata"]["labels"]
        for one in charts.workloads(objects)
    ]  # fmt: skip
    for one in objects:
        spec = one.get("spec", {})
        match one["kind"]:
            case "Deployment" | "StatefulSet":
                _matches(spec["selector"]["matchLabels"], [spec["template"]["metadata"]["labels"]])
            case "Service":
                _matches(spec["selector"], labels)
            case "PodDisruptionBudget" | "PodMonitor":
                _matches(spec["selector"]["matchLabels"], labels)
            case "NetworkPolicy" if charts.component_of(one["metadata"]) in charts.SERVICES:
                _matches(spec["podSelector"]["matchLabels"], labels)
            case "HorizontalPodAutoscaler" | "ScaledObject":
                names = [found["metadata"]["name"] for found in of_kind(objects, "Deployment")]
                assert spec["scaleTargetRef"]["name"] in names
            case _:
                pass


def _matches(selector: dict[str, str], labels: list[dict[str, str]]) -> None:
    assert selector
    assert any(selector.items() <= found.items() for found in labels)


@SCENARIO
def test_selectors_never_hold_a_version(scenario: str) -> None:
    """What can't be changed in a living release says nothing that an upgrade changes."""
    for one in of_kind(charts.rendered(scenario), "Deployment"):
        assert one["spec"]["selector"]["matchLabels"].keys() == {
            "app.kubernetes.io/name",
            "app.kubernetes.io/instance",
            "app.kubernetes.io/component",
        }


@SCENARIO
def test_only_builds_write_the_index(scenario: str) -> None:
    """Searchers and upload mount the index read-only, and nobody writes the images."""
    objects = charts.rendered(scenario)
    for service in ("upload", "searcher"):
        (container,) = pod_of(the(objects, "Deployment", service))["containers"]
        assert environment(container)["SIMILE_ROOT"] == "/data"
        assert mounts(container)["/data"]["readOnly"] is True
    for workload in charts.workloads(objects):
        for container in containers(pod_of(workload)):
            for mount in container["volumeMounts"]:
                writes = not mount.get("readOnly", False)
                if mount["name"] == "index" and writes:
                    assert workload["kind"] in {"Job", "CronJob"}
                if mount["name"] == "images":
                    assert not writes


@SCENARIO
def test_volumes_and_mounts_fit(scenario: str) -> None:
    """Each mount has its volume, each volume a mount, and the claim made here is the one used."""
    objects = charts.rendered(scenario)
    made = {one["metadata"]["name"] for one in of_kind(objects, "PersistentVolumeClaim")}
    for workload in charts.workloads(objects):
        pod = pod_of(workload)
        mounted = {mount["name"] for one in containers(pod) for mount in one["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        for volume in pod["volumes"]:
            if volume["name"] == "index":
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert claim in made or claim == "my-indexes"


@SCENARIO
def test_nobody_is_killed_with_work_in_hand(scenario: str) -> None:
    """A pod's grace is longer than what it waits before SIGTERM, and drains after it."""
    for service in charts.SERVICES:
        pod = pod_of(the(charts.rendered(scenario), "Deployment", service))
        (container,) = pod["containers"]
        drain = float(environment(container)["SIMILE_DRAIN_TIMEOUT_SECONDS"])
        command = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
        waits = float(command[1]) if command else 0
        lame_duck = 20 if scenario == "external" else 3
        assert waits == (lame_duck if service == "upload" else 0)
        assert pod["terminationGracePeriodSeconds"] > drain + waits + 2


def test_the_drain_of_the_chart_is_that_of_the_code() -> None:
    """The one default that the chart must know is the settings' own."""
    (container,) = pod_of(the(charts.rendered("minimal"), "Deployment", "upload"))["containers"]
    default = SharedSettings.model_fields["drain_timeout_seconds"].default
    assert float(environment(container)["SIMILE_DRAIN_TIMEOUT_SECONDS"]) == default


@SCENARIO
def test_replicas_are_known_by_their_pods(scenario: str) -> None:
    """Reply queues and logs bear the pod's name, never a number that two replicas share."""
    for service in charts.SERVICES:
        (container,) = pod_of(the(charts.rendered(scenario), "Deployment", service))["containers"]
        assert environment(container)["SIMILE_REPLICA"] == {
            "fieldRef": {"fieldPath": "metadata.name"}
        }


@pytest.mark.parametrize("scenario", [name for name in charts.NAMES if name != "quiet"])
def test_budgets_and_policies_are_there(scenario: str) -> None:
    """Each service has a budget that lets nodes drain; each pod a policy, for both directions."""
    objects = charts.rendered(scenario)
    for service in charts.SERVICES:
        budget = the(objects, "PodDisruptionBudget", service)["spec"]
        assert budget["maxUnavailable"] == 1
        assert "minAvailable" not in budget
    for workload in charts.workloads(objects):
        component = charts.component_of(charts.template_of(workload)["metadata"])
        policy = the(objects, "NetworkPolicy", str(component))["spec"]
        assert policy["policyTypes"] == ["Ingress", "Egress"]


@SCENARIO
def test_policies_open_the_broker_and_names_only(scenario: str) -> None:
    """What Simile's pods may call is DNS and the broker's port, unless the values add to it."""
    for one in of_kind(charts.rendered(scenario), "NetworkPolicy"):
        component = charts.component_of(one["metadata"])
        if component == "broker":
            continue
        if component == "test":
            names, upload = one["spec"]["egress"]
            assert {port["port"] for port in names["ports"]} == {53, 5353}
            assert _selected(upload["to"]) == ["upload"]
            continue
        ports = {port["port"] for rule in one["spec"]["egress"] for port in rule["ports"]}
        expected = {53, 5353} | ({5671, 4317} if scenario == "external" else {5672})
        by_address = {80, 443} if (scenario, component) == ("external", "upload") else set[int]()
        assert ports == expected | by_address
        to_broker = [
            rule for rule in one["spec"]["egress"] if rule["ports"][0]["port"] in {5671, 5672}
        ]
        anywhere = {"minimal", "gpu", "copy", "quiet"}
        assert all("to" in rule for rule in to_broker) == (scenario not in anywhere)


@SCENARIO
def test_the_broker_is_reached_where_others_are_kept_out(scenario: str) -> None:
    """Simile's pods reach the broker that the chart makes, and several nodes reach each other."""
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


def _selected(peers: list[Manifest]) -> list[str | None]:
    return [
        charts.component_of({"labels": peer["podSelector"]["matchLabels"]}) for peer in peers
    ]  # fmt: skip


@SCENARIO
def test_upgrades_take_no_pod_away_before_another_is_ready(scenario: str) -> None:
    """Rolling updates surge, but for GPUs, of which there is none to spare."""
    for service in charts.SERVICES:
        strategy = the(charts.rendered(scenario), "Deployment", service)["spec"]["strategy"]
        spare = 0 if service == "embedder" and scenario in {"gpu", "example-gpu"} else 1
        assert strategy == {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": spare, "maxUnavailable": 1 - spare},
        }


@SCENARIO
def test_secrets_are_named_never_shown(scenario: str) -> None:
    """No password is in any object but the dev broker's own Secret."""
    for one in charts.rendered(scenario):
        if one["kind"] != "Secret":
            assert "for-tests" not in str(one)
    for workload in charts.workloads(charts.rendered(scenario)):
        for container in containers(pod_of(workload)):
            for name, value in environment(container).items() if "env" in container else ():
                if isinstance(value, str):
                    assert not name.endswith(("_PASSWORD", "_PASS"))
                    # Who asks is named by a reference to another variable, if at all.
                    assert not re.search(r"://[^/$@]*:[^/$@]*@", value)


@SCENARIO
def test_the_test_leaves_nothing_but_its_log(scenario: str) -> None:
    """A release doesn't own hooks: what the test made goes when it succeeded, but for its pod."""
    for one in charts.rendered(scenario):
        annotations = one["metadata"].get("annotations", {})
        if "helm.sh/hook" in annotations:
            policies = annotations["helm.sh/hook-delete-policy"].split(",")
            assert "before-hook-creation" in policies
            assert ("hook-succeeded" in policies) == (one["kind"] != "Pod")


def test_the_test_runs_where_upload_runs() -> None:
    """Taints, nodes and registries that upload copes with keep `helm test` from nothing."""
    objects = charts.rendered("production")
    tester, upload = (pod_of(the(objects, *what)) for what in
                      (("Pod", "test"), ("Deployment", "upload")))  # fmt: skip
    for key in ("imagePullSecrets", "priorityClassName", "nodeSelector", "tolerations"):
        assert tester[key] == upload[key]


def test_a_gpu_is_asked_for_as_the_values_say() -> None:
    """GPU limits, runtime class, tolerations, node selector, image and weights come together."""
    pod = pod_of(the(charts.rendered("gpu"), "Deployment", "embedder"))
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert container["image"].endswith("-cuda")
    assert pod["runtimeClassName"] == "nvidia"
    assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert mounts(container)["/models"]["readOnly"] is True
    assert environment(container)["SIMILE_EMBEDDER_MODELS_DIR"] == "/models"
    assert environment(container)["SIMILE_EMBEDDER_MODEL"] == "resnet50"


def test_keda_sees_what_embedders_have_in_hand() -> None:
    """The trigger asks over HTTP for waiting and unacked messages, with fallback and patience."""
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
def test_nobody_wakes_embedders_but_people(scenario: str) -> None:
    """Where there may be no embedder, no canary of upload's waits for one to start."""
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


def _replicas(scenario: str, service: str) -> Any:
    return the(charts.rendered(scenario), "Deployment", service)["spec"].get("replicas")


def test_autoscalers_own_the_number_of_pods() -> None:
    """Where something else counts pods, or the values say null, an upgrade doesn't reset it."""
    assert _replicas("keda", "embedder") is None
    assert _replicas("production", "embedder") is None
    assert _replicas("production", "upload") is None
    assert [_replicas("quiet", service) for service in charts.SERVICES] == [None] * 3
    # What people scale by hand is theirs from the start.
    assert [_replicas("minimal", service) for service in charts.SERVICES] == [2, None, 2]


def test_the_route_leads_to_the_service() -> None:
    """Ingress and HTTPRoute name a Service and a port of it that exist."""
    objects = charts.rendered("production")
    service = the(objects, "Service", "upload")
    rule = the(objects, "Ingress", "upload")["spec"]["rules"][0]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": service["metadata"]["name"], "port": {"name": "http"}}
    assert service["spec"]["ports"][0]["name"] == "http"
    route = the(objects, "HTTPRoute", "upload")
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert route["spec"]["hostnames"] == ["similar.example.com"]
    (target,) = route["spec"]["rules"][0]["backendRefs"]
    assert target == {
        "name": service["metadata"]["name"],
        "port": service["spec"]["ports"][0]["port"],
    }


def test_searchers_spread_over_zones_and_nodes() -> None:
    """A node or a zone that goes takes as few of them as possible."""
    spread = pod_of(the(charts.rendered("minimal"), "Deployment", "searcher"))[
        "topologySpreadConstraints"
    ]
    assert [one["topologyKey"] for one in spread] == [
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    ]


def test_each_collection_is_built() -> None:
    """A job and a cron job for each collection, of the searcher's image, with its own name."""
    objects = charts.rendered("external")
    commands = [pod_of(job)["containers"][0]["args"] for job in of_kind(objects, "Job")]
    assert commands == [
        ["index", "build", "/images/archive/pictures", "--collection", "pictures"],
        ["index", "build", "/images/products_2026", "--collection", "products_2026"],
    ]
    (cron,) = of_kind(charts.rendered("production"), "CronJob")
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"
    image = pod_of(cron)["containers"][0]["image"]
    assert image == "registry.example.com/simile/simile-searcher:0.1.0"
    (drawn,) = of_kind(charts.rendered("dev"), "Job")
    assert pod_of(drawn)["containers"][0]["args"] == ["index", "build"]


def test_a_build_takes_no_more_threads_than_its_cores() -> None:
    """A matrix product is split by the container's limit, not by the cores of the node."""
    (job,) = of_kind(charts.rendered("dev"), "Job")
    threads = environment(pod_of(job)["containers"][0])["OPENBLAS_NUM_THREADS"]
    assert threads == {"resourceFieldRef": {"resource": "limits.cpu"}}


def test_images_are_where_the_build_saw_them() -> None:
    """Upload mounts the images at the same path as the build, so that it can show them."""
    objects = charts.rendered("external")
    (upload,) = pod_of(the(objects, "Deployment", "upload"))["containers"]
    build = pod_of(of_kind(objects, "Job")[0])["containers"][0]
    assert mounts(upload)["/images"] == mounts(build)["/images"]


def test_secrets_reach_upload_as_files() -> None:
    """API keys, TLS and the broker's CA are mounted, whole volumes, so that changes arrive."""
    (container,) = pod_of(the(charts.rendered("external"), "Deployment", "upload"))["containers"]
    variables, mounted = environment(container), mounts(container)
    for variable, path in {
        "SIMILE_UPLOAD_API_KEYS_FILE": "/etc/simile/api-keys/keys",
        "SIMILE_UPLOAD_TLS_CERT_FILE": "/etc/simile/tls/tls.crt",
        "SIMILE_UPLOAD_TLS_KEY_FILE": "/etc/simile/tls/tls.key",
        "SIMILE_AMQP_CA_FILE": "/etc/simile/broker-tls/ca.crt",
        "SIMILE_AMQP_KEY_FILE": "/etc/simile/broker-tls/tls.key",
    }.items():
        assert variables[variable] == path
        folder = path.rpartition("/")[0]
        assert mounted[folder]["readOnly"] is True
        assert "subPath" not in mounted[folder]


def test_monitoring_off_makes_nothing_for_an_operator() -> None:
    """Without the Prometheus operator nothing of it is asked for."""
    kinds = {one["kind"] for one in charts.rendered("quiet")}
    assert not kinds & {"PodMonitor", "ServiceMonitor", "PrometheusRule", "NetworkPolicy",
                        "PodDisruptionBudget", "Job"}  # fmt: skip


def test_monitors_read_every_service() -> None:
    """The monitor selects services and builds by a port they have, and says which release it is."""
    (monitor,) = of_kind(charts.rendered("production"), "PodMonitor")
    (expression,) = monitor["spec"]["selector"]["matchExpressions"]
    assert tuple(expression["values"]) == (*charts.SERVICES, "index")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (label,) = [one["sourceLabels"] for one in endpoint["relabelings"]
                if one["targetLabel"] == "release"]  # fmt: skip
    assert label == ["__meta_kubernetes_pod_label_app_kubernetes_io_instance"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    for service in charts.SERVICES:
        (container,) = pod_of(the(charts.rendered("production"), "Deployment", service))[
            "containers"
        ]
        assert endpoint["port"] in {port["name"] for port in container["ports"]}


def test_a_rabbitmq_cluster_survives_a_node() -> None:
    """The operator is asked for three nodes with disks; every service uses the user it makes."""
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


def test_the_dev_broker_opens_few_files(tmp_path: Path) -> None:
    """It says how many before it starts; where it may open fewer it starts all the same."""
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


def test_brokers_of_the_chart_take_the_largest_image() -> None:
    """Where larger images are let in than RabbitMQ takes by itself, it is told; else it isn't."""
    large = ("--set", "imageMaxBytes=50000000")
    (dev,) = of_kind(manifests.render(charts.SCENARIOS / "dev.yaml", options=large), "ConfigMap",
                     "broker")  # fmt: skip
    (cluster,) = of_kind(
        manifests.render(charts.SCENARIOS / "keda.yaml", options=large), "RabbitmqCluster"
    )
    for text in (dev["data"]["90-simile.conf"], cluster["spec"]["rabbitmq"]["additionalConfig"]):
        assert "max_message_size = 51048576" in text.splitlines()
    assert "max_message_size" not in str(charts.rendered("dev"))


def _template(chart: Path, kind: str, component: str) -> Any:
    values = charts.SCENARIOS / "dev.yaml"
    objects = yaml.safe_load_all(
        run(helm(), "template", "simile", chart, "--values", values, "--set", "image.tag=1.0.0")
    )
    return the([one for one in objects if one], kind, component)["spec"]["template"]


def test_an_upgrade_leaves_what_it_doesnt_change(tmp_path: Path) -> None:
    """A new chart restarts nothing, and a new Simile not the broker, which forgets when it ends."""
    for options in ((), ("--app-version", "9.0.0")):
        run(helm(), "package", manifests.CHART, "--version", "9.0.0", *options, "-d", tmp_path)
        newer = tmp_path / "simile-9.0.0.tgz"
        broker = "StatefulSet", "broker"
        assert _template(newer, *broker) == _template(manifests.CHART, *broker)
        upload = "Deployment", "upload"
        same = _template(newer, *upload) == _template(manifests.CHART, *upload)
        assert same == (not options)


def test_a_copy_is_made_beside_each_searcher() -> None:
    """A sidecar reads the shared volume and writes the searcher's own, which the searcher reads."""
    pod = pod_of(the(charts.rendered("copy"), "Deployment", "searcher"))
    (copier,) = pod["initContainers"]
    assert copier["restartPolicy"] == "Always"
    assert copier["args"] == ["index", "copy", "/shared", "--root", "/data", "--follow", "2.5"]
    assert environment(copier)["SIMILE_LOG_LEVEL"] == "debug"
    assert copier["resources"]["requests"]["ephemeral-storage"] == "50Gi"
    assert mounts(copier)["/shared"]["readOnly"] is True
    assert "readOnly" not in mounts(copier)["/data"]
    assert mounts(pod["containers"][0])["/data"] == {
        "name": "copy",
        "mountPath": "/data",
        "readOnly": True,
    }


def _jobs(*options: str) -> set[str]:
    rendered: list[Manifest] = manifests.render(charts.SCENARIOS / "external.yaml", options=options)
    return {one["metadata"]["name"] for one in of_kind(rendered, "Job")}


def test_a_job_that_changes_is_another_job() -> None:
    """Jobs are immutable, so an upgrade that changes one must not patch it; others stay."""
    before = _jobs()
    assert _jobs("--set", "upload.replicas=5") == before
    assert not _jobs("--set", "index.trees=100") & before

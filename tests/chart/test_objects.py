"""Tests properties of every rendered object, whatever the values."""

from __future__ import annotations

import re

import pytest

from services.searcher.admin.copying import FIRST_ROUND
from services.shared.settings import SharedSettings
from tests.support import charts
from tests.support.charts import containers, environment, mounts, of_kind, pod_of, the
from tools.chart.manifests import Manifest

SCENARIO = pytest.mark.parametrize("scenario", charts.NAMES)
# A build's pod has no probes: if a build hangs, the embedders are at fault.
ASKED = ("Deployment", "StatefulSet")
DIGITS = re.compile(r"\d")


@SCENARIO
def test_pods_are_restricted(scenario: str) -> None:
    """Pods meet the restricted Pod Security standard, and can write only to volumes."""
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
    """Each container has requests, and a memory limit."""
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
def test_services_have_probes(scenario: str) -> None:
    """Long-lived containers have three probes, patient enough for a busy node."""
    for workload in charts.workloads(charts.rendered(scenario)):
        if workload["kind"] in ASKED:
            for container in pod_of(workload)["containers"]:
                ports = {port["name"] for port in container["ports"]}
                for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                    assert 3 <= container[probe]["timeoutSeconds"] <= 5
                    asked = container[probe].get("httpGet", container[probe].get("tcpSocket"))
                    assert asked["port"] in ports


@pytest.mark.parametrize("service", charts.SERVICES)
def test_a_slow_start_does_not_fail_a_rollout(service: str) -> None:
    """The progress deadline of a rollout is far longer than the start of a pod."""
    deployment = the(charts.rendered("minimal"), "Deployment", service)
    (container,) = pod_of(deployment)["containers"]
    probe = container["startupProbe"]
    most = probe["periodSeconds"] * probe["failureThreshold"]
    assert deployment["spec"].get("progressDeadlineSeconds", 600) >= 3 * most


@pytest.mark.parametrize("service", charts.SERVICES)
def test_readiness_and_liveness_have_their_own_paths(service: str) -> None:
    """The probes use /readyz for traffic and /livez for restarts, on the admin port."""
    (container,) = pod_of(the(charts.rendered("minimal"), "Deployment", service))["containers"]
    asked = {name: container[f"{name}Probe"]["httpGet"] for name in
             ("startup", "readiness", "liveness")}  # fmt: skip
    assert asked["readiness"] == {"path": "/readyz", "port": "admin"}
    assert asked["startup"] == asked["liveness"] == {"path": "/livez", "port": "admin"}
    assert environment(container)["SIMILE_ADMIN_HOST"] == "0.0.0.0"  # noqa: S104 (in its pod)


@SCENARIO
def test_selectors_match_the_labels_of_their_pods(scenario: str) -> None:
    """Selectors of Deployments, Services, budgets, policies and autoscalers match a workload."""
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
def test_only_builds_write_the_index(scenario: str) -> None:
    """Searchers and upload mount the index read-only, and no pod writes the images."""
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
    """Each mount has its volume, each volume a mount, and the created claim is the one used."""
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
def test_an_early_signal_ends_a_pod(scenario: str) -> None:
    """The process is not PID 1, for which the kernel drops signals while Python starts."""
    for service in charts.SERVICES:
        pod = pod_of(the(charts.rendered(scenario), "Deployment", service))
        assert pod["shareProcessNamespace"] is True


@SCENARIO
def test_no_pod_is_killed_before_its_drain_ends(scenario: str) -> None:
    """A pod's grace period covers the time it still accepts requests and the drain after it."""
    for service in charts.SERVICES:
        pod = pod_of(the(charts.rendered(scenario), "Deployment", service))
        (container,) = pod["containers"]
        drain = float(environment(container)["SIMILE_DRAIN_TIMEOUT_SECONDS"])
        # In the process: a preStop hook runs another program in the pod, which may fail or be late.
        assert "lifecycle" not in container
        waits = float(environment(container).get("SIMILE_UPLOAD_LAME_DUCK_SECONDS", 0))
        lame_duck = 20 if scenario == "external" else 5
        assert waits == (lame_duck if service == "upload" else 0)
        assert pod["terminationGracePeriodSeconds"] > drain + waits + 2


def test_the_drain_of_the_chart_equals_that_of_the_code() -> None:
    """The default that the chart must know equals the default in the code."""
    (container,) = pod_of(the(charts.rendered("minimal"), "Deployment", "upload"))["containers"]
    default = SharedSettings.model_fields["drain_timeout_seconds"].default
    assert float(environment(container)["SIMILE_DRAIN_TIMEOUT_SECONDS"]) == default


@SCENARIO
def test_replicas_are_named_by_their_pods(scenario: str) -> None:
    """Reply queues and logs have the pod's name, never a number that two replicas share."""
    for service in charts.SERVICES:
        (container,) = pod_of(the(charts.rendered(scenario), "Deployment", service))["containers"]
        assert environment(container)["SIMILE_REPLICA"] == {
            "fieldRef": {"fieldPath": "metadata.name"}
        }


@pytest.mark.parametrize("scenario", [name for name in charts.NAMES if name != "quiet"])
def test_budgets_and_policies_exist(scenario: str) -> None:
    """Each service has a budget that permits node drains; each pod a policy for both directions."""
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
def test_policies_permit_the_broker_and_dns_only(scenario: str) -> None:
    """Simile's pods may reach DNS and the broker's port, unless the values add more."""
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


def _selected(peers: list[Manifest]) -> list[str | None]:
    return [
        charts.component_of({"labels": peer["podSelector"]["matchLabels"]}) for peer in peers
    ]  # fmt: skip


@SCENARIO
def test_secrets_are_referenced_never_copied(scenario: str) -> None:
    """Only the dev broker's own Secret contains a password."""
    for one in charts.rendered(scenario):
        if one["kind"] != "Secret":
            assert "for-tests" not in str(one)
    for workload in charts.workloads(charts.rendered(scenario)):
        for container in containers(pod_of(workload)):
            for name, value in environment(container).items() if "env" in container else ():
                if isinstance(value, str):
                    assert not name.endswith(("_PASSWORD", "_PASS"))
                    # Callers are named by references to other variables, if at all.
                    assert not re.search(r"://[^/$@]*:[^/$@]*@", value)


@SCENARIO
def test_the_test_leaves_nothing_but_its_log(scenario: str) -> None:
    """A release doesn't own hooks: after success the test leaves only its pod with the log."""
    for one in charts.rendered(scenario):
        annotations = one["metadata"].get("annotations", {})
        if "helm.sh/hook" in annotations:
            policies = annotations["helm.sh/hook-delete-policy"].split(",")
            assert "before-hook-creation" in policies
            assert ("hook-succeeded" in policies) == (one["kind"] != "Pod")


def test_the_test_runs_where_upload_runs() -> None:
    """The pod of `helm test` has the tolerations, node selector and registry of upload."""
    objects = charts.rendered("production")
    tester, upload = (pod_of(the(objects, *what)) for what in
                      (("Pod", "test"), ("Deployment", "upload")))  # fmt: skip
    for key in ("imagePullSecrets", "priorityClassName", "nodeSelector", "tolerations"):
        assert tester[key] == upload[key]


def test_a_gpu_is_requested_as_the_values_say() -> None:
    """GPU limits, runtime class, tolerations, node selector, image and weights are consistent."""
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


def test_ingress_and_route_lead_to_the_service() -> None:
    """Ingress and HTTPRoute refer to an existing Service and port."""
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
    """Losing a node or a zone affects as few searchers as possible."""
    spread = pod_of(the(charts.rendered("minimal"), "Deployment", "searcher"))[
        "topologySpreadConstraints"
    ]
    assert [one["topologyKey"] for one in spread] == [
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    ]


def test_each_collection_is_built() -> None:
    """Each collection has a Job and a CronJob of the searcher's image, with its name."""
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


@SCENARIO
def test_a_build_survives_any_number_of_nodes(scenario: str) -> None:
    """Drains and spot nodes don't count as failures, and a failed pod keeps its log."""
    objects = charts.rendered(scenario)
    specs = [one["spec"] for one in of_kind(objects, "Job")]
    specs += [one["spec"]["jobTemplate"]["spec"] for one in of_kind(objects, "CronJob")]
    for spec in specs:
        assert spec["podFailurePolicy"]["rules"] == [
            {
                "action": "Ignore",
                "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
            }
        ]
        # The pod failure policy requires it.
        assert spec["template"]["spec"]["restartPolicy"] == "Never"


def test_a_build_takes_no_more_threads_than_its_cores() -> None:
    """Matrix products use as many threads as the container's limit, not as the node's cores."""
    (job,) = of_kind(charts.rendered("dev"), "Job")
    threads = environment(pod_of(job)["containers"][0])["OPENBLAS_NUM_THREADS"]
    assert threads == {"resourceFieldRef": {"resource": "limits.cpu"}}


def test_images_are_where_the_build_read_them() -> None:
    """Upload mounts the images at the same path as the build, so that it can show them."""
    objects = charts.rendered("external")
    (upload,) = pod_of(the(objects, "Deployment", "upload"))["containers"]
    build = pod_of(of_kind(objects, "Job")[0])["containers"][0]
    assert mounts(upload)["/images"] == mounts(build)["/images"]


def test_secrets_reach_upload_as_files() -> None:
    """API keys, TLS and the broker's CA are mounted as whole volumes, so that changes arrive."""
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
    """Without the Prometheus operator none of its objects is rendered."""
    kinds = {one["kind"] for one in charts.rendered("quiet")}
    assert not kinds & {"PodMonitor", "ServiceMonitor", "PrometheusRule", "NetworkPolicy",
                        "PodDisruptionBudget", "Job"}  # fmt: skip


def test_monitors_scrape_every_service() -> None:
    """The monitor selects services and builds by an existing port, and adds the release."""
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


def test_a_copy_is_made_beside_each_searcher() -> None:
    """A sidecar copies from the shared volume to the searcher's own, which the searcher reads."""
    pod = pod_of(the(charts.rendered("copy"), "Deployment", "searcher"))
    (copier,) = pod["initContainers"]
    assert copier["restartPolicy"] == "Always"
    assert copier["args"] == ["index", "copy", "/shared", "--root", "/data", "--follow", "2.5"]
    assert environment(copier)["SIMILE_LOG_LEVEL"] == "debug"
    assert copier["resources"]["requests"]["ephemeral-storage"] == "50Gi"
    # Kubernetes starts the searcher after the first copy, not with an empty disk.
    probe = copier["startupProbe"]
    assert probe["exec"]["command"] == ["test", "-f", f"/data/{FIRST_ROUND}"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 3600
    assert mounts(copier)["/shared"]["readOnly"] is True
    assert "readOnly" not in mounts(copier)["/data"]
    assert mounts(pod["containers"][0])["/data"] == {
        "name": "copy",
        "mountPath": "/data",
        "readOnly": True,
    }

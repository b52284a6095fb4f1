"""Tests that common values of other charts reach their place in each object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support import charts
from tests.support.charts import of_kind, pod_of, the
from tools.chart import manifests
from tools.chart.manifests import Manifest

WORKLOADS: Final = (
    ("Deployment", "upload"),
    ("Deployment", "embedder"),
    ("Deployment", "searcher"),
    ("CronJob", "index"),
)
SPREAD: Final = [
    {"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule",
     "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "simile"}}}
]  # fmt: skip
POD: Final[dict[str, Any]] = {
    "topologySpreadConstraints": SPREAD,
    "annotations": {"reloader.stakater.com/auto": "true"},
    "podAnnotations": {"note": "a"},
    "podLabels": {"team": "images"},
    "priorityClassName": "important",
    "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["broker.internal"]}],
    "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
    "initContainers": [{"name": "wait", "image": "busybox:1.37"}],
    "extraContainers": [{"name": "proxy", "image": "envoy:1.30"}],
    "extraEnv": [{"name": "A", "value": "b"}],
    "extraEnvFrom": [{"secretRef": {"name": "mine"}}],
}


def _rendered(folder: Path, *given: dict[str, Any], scenario: str = "production") -> list[Manifest]:
    files = []
    for number, values in enumerate(given):
        files.append(folder / f"{number}.yaml")
        files[-1].write_text(json.dumps(values))
    objects = manifests.render(*charts.VALUES[scenario], *files)
    for one in objects:
        charts.accept(one, charts.NEWEST)
    return objects


def _workloads(objects: Sequence[Manifest]) -> list[tuple[Manifest, Manifest]]:
    found = [the(objects, *which) for which in WORKLOADS]
    return [(one, charts.template_of(one)) for one in found]


def test_every_pod_takes_the_common_values(tmp_path: Path) -> None:
    """Every pod takes placement, names, sidecars, variables and annotations from the values."""
    given = dict.fromkeys((*charts.SERVICES, "index"), POD)
    shared = {"extraEnvFrom": [{"configMapRef": {"name": "ours"}}]}
    for workload, template in _workloads(_rendered(tmp_path, given, shared)):
        spec = template["spec"]
        assert workload["metadata"]["annotations"] == POD["annotations"]
        assert template["metadata"]["annotations"]["note"] == "a"
        # A label of the pods overrides a label of all objects.
        assert template["metadata"]["labels"]["team"] == "images"
        assert workload["metadata"]["labels"]["team"] == "search"
        assert spec["initContainers"] == POD["initContainers"]
        own, *others = spec["containers"]
        assert others == POD["extraContainers"]
        assert {"name": "A", "value": "b"} in own["env"]
        assert own["envFrom"] == shared["extraEnvFrom"] + POD["extraEnvFrom"]
        for key in ("topologySpreadConstraints", "priorityClassName", "hostAliases", "dnsConfig"):
            assert spec[key] == POD[key]


def test_a_sidecar_that_copies_starts_beside_other_containers(tmp_path: Path) -> None:
    """Init containers that end come before the sidecar."""
    objects = _rendered(tmp_path, {"searcher": POD}, scenario="copy")
    pod = pod_of(the(objects, "Deployment", "searcher"))
    assert [one["name"] for one in pod["initContainers"]] == ["wait", "copy"]


def test_an_empty_spread_is_left_out(tmp_path: Path) -> None:
    """Null is the chart's default spread, an empty list is no spread; an affinity replaces it."""
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname"}]}}  # fmt: skip
    given = {"upload": {"topologySpreadConstraints": []}, "searcher": {"affinity": affinity}}
    objects = _rendered(tmp_path, given)
    for service in ("upload", "searcher"):
        assert "topologySpreadConstraints" not in pod_of(the(objects, "Deployment", service))
    assert "topologySpreadConstraints" in pod_of(the(objects, "Deployment", "embedder"))
    assert "topologySpreadConstraints" not in pod_of(the(objects, "CronJob", "index"))


@pytest.mark.parametrize("service", charts.SERVICES)
def test_the_update_strategy_is_configurable(tmp_path: Path, service: str) -> None:
    """The strategy Recreate has none of the numbers of a rolling update."""
    objects = _rendered(tmp_path, {service: {"strategy": {"type": "Recreate"}}})
    assert the(objects, "Deployment", service)["spec"]["strategy"] == {"type": "Recreate"}


def test_the_service_takes_the_values_of_load_balancers(tmp_path: Path) -> None:
    """Class, address, networks, node port, families and policy are rendered only when set."""
    fields = {
        "type": "LoadBalancer", "loadBalancerClass": "service.k8s.aws/nlb",
        "loadBalancerIP": "203.0.113.7", "loadBalancerSourceRanges": ["10.0.0.0/8"],
        "externalTrafficPolicy": "Local", "ipFamilyPolicy": "PreferDualStack",
        "ipFamilies": ["IPv4", "IPv6"], "clusterIP": "10.96.7.7",
    }  # fmt: skip
    more = {"nodePort": 30080, "labels": {"team": "edge"}, "annotations": {"internal": "true"}}
    objects = _rendered(tmp_path, {"upload": {"service": {**fields, **more}}})
    service = the(objects, "Service", "upload")
    assert {key: service["spec"][key] for key in fields} == fields
    assert service["spec"]["ports"][0]["nodePort"] == 30080
    assert service["metadata"]["labels"]["team"] == "edge"
    assert service["metadata"]["annotations"] == {"internal": "true"}
    plain = the(charts.rendered("minimal"), "Service", "upload")["spec"]
    assert plain.keys() == {"type", "selector", "ports"}
    assert "nodePort" not in plain["ports"][0]


@pytest.mark.parametrize(
    ("account", "name", "made"),
    [
        ({}, "simile-{}", True),
        ({"name": "robot-{}"}, "robot-{}", True),
        ({"create": False}, "default", False),
        ({"create": False, "name": "shared"}, "shared", False),
    ],
    ids=["made", "named", "the namespace's", "yours"],
)
def test_service_accounts_are_created_or_given(
    tmp_path: Path, account: dict[str, Any], name: str, *, made: bool
) -> None:
    """Each pod runs as the named account, which is created only if the values say so."""
    sections = (*charts.SERVICES, "index")
    given = {
        section: {"serviceAccount": {**account, "annotations": {"role": "arn"},
                                     "name": account.get("name", "").format(section)}}
        for section in sections
    }  # fmt: skip
    objects = _rendered(tmp_path, {"fullnameOverride": "", **given})
    for section, (_, template) in zip(sections, _workloads(objects), strict=True):
        assert template["spec"]["serviceAccountName"] == name.format(section)
    accounts = {one["metadata"]["name"]: one for one in of_kind(objects, "ServiceAccount")}
    assert accounts.keys() == ({name.format(section) for section in sections} if made else set())
    for one in accounts.values():
        assert one["metadata"]["annotations"] == {"role": "arn"}
        assert one["automountServiceAccountToken"] is False


def test_annotations_of_accounts_are_accepted_under_their_former_name(tmp_path: Path) -> None:
    """The former name of a value is still accepted; the present name takes precedence."""
    given = {
        "serviceAccount": {"annotations": {"role": "new"}},
        "serviceAccountAnnotations": {"role": "old", "team": "search"},
    }
    accounts = of_kind(_rendered(tmp_path, {"embedder": given}), "ServiceAccount")
    (account,) = (one for one in accounts if one["metadata"]["name"].endswith("embedder"))
    assert account["metadata"]["annotations"] == {"role": "new", "team": "search"}


@pytest.mark.parametrize(
    ("given", "spec"),
    [
        ({"maxUnavailable": "25%"}, {"maxUnavailable": "25%"}),
        ({"maxUnavailable": 0}, {"maxUnavailable": 0}),
        ({"minAvailable": 2}, {"minAvailable": 2}),
        ({"minAvailable": "50%"}, {"minAvailable": "50%"}),
    ],
)
def test_budgets_are_configurable(
    tmp_path: Path, given: dict[str, Any], spec: dict[str, Any]
) -> None:
    """Budgets take a number or a percentage, as unavailable or as available."""
    objects = _rendered(tmp_path, {service: {"pdb": given} for service in charts.SERVICES})
    for service in charts.SERVICES:
        found = the(objects, "PodDisruptionBudget", service)["spec"]
        assert {key: found[key] for key in found if key.endswith("vailable")} == spec


def test_extra_objects_are_rendered(tmp_path: Path) -> None:
    """Extra objects are manifests or strings, with templates filled in."""
    name = "{{ .Release.Name }}-secrets"
    secret = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
    text = (
        'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "{{ .Values.image.registry | base }}"}'
    )
    objects = _rendered(tmp_path, {"extraObjects": [secret, text]})
    names = [one["metadata"]["name"] for one in of_kind(objects, "ConfigMap")]
    assert {"simile-secrets", "simile"} <= set(names)


def test_every_object_is_in_the_namespace_of_the_values(tmp_path: Path) -> None:
    """Names that contain the namespace follow it, too."""
    for scenario in ("production", "dev"):
        objects = _rendered(tmp_path, {"namespaceOverride": "search"}, scenario=scenario)
        assert {one["metadata"]["namespace"] for one in objects} == {"search"}
    secret = the(objects, "Secret", "broker")["stringData"]
    assert "simile-broker.search.svc" in secret["management-url"]


def test_monitors_and_rules_are_configurable(tmp_path: Path) -> None:
    """Relabelings, timeouts, labels of alerts, disabled alerts and own groups are rendered."""
    relabel = [{"targetLabel": "cluster", "replacement": "a"}]
    drop = [{"sourceLabels": ["__name__"], "regex": "go_.*", "action": "drop"}]
    group = {"name": "mine", "rules": [{"alert": "Mine", "expr": "vector(1)"}]}
    before = the(charts.rendered("production"), "PrometheusRule", "rules")["spec"]["groups"]
    left_out = next(rule["alert"] for one in before for rule in one["rules"] if "alert" in rule)
    monitoring = {
        "podMonitor": {
            "scrapeTimeout": "10s", "relabelings": relabel, "metricRelabelings": drop,
        },
        "rules": {
            "disabledAlerts": [left_out], "alertLabels": {"team": "search"},
            "extraGroups": [group],
        },
    }  # fmt: skip
    objects = _rendered(tmp_path, {"monitoring": monitoring})
    (endpoint,) = the(objects, "PodMonitor", "metrics")["spec"]["podMetricsEndpoints"]
    assert endpoint["scrapeTimeout"] == "10s"
    assert endpoint["relabelings"][-1:] == relabel
    assert endpoint["metricRelabelings"] == drop
    after = the(objects, "PrometheusRule", "rules")["spec"]["groups"]
    assert after[-1] == group
    rules = [rule for one in after[:-1] for rule in one["rules"]]
    alerts = [rule for rule in rules if "alert" in rule]
    assert left_out not in [rule["alert"] for rule in alerts]
    assert len(rules) == sum(len(one["rules"]) for one in before) - 1
    assert all(rule["labels"]["team"] == "search" for rule in alerts)
    assert all("severity" in rule["labels"] for rule in alerts)
    assert not any("team" in rule.get("labels", {}) for rule in rules if "record" in rule)


@pytest.mark.parametrize("service", charts.SERVICES)
def test_probes_are_configurable(tmp_path: Path, service: str) -> None:
    """Only the given numbers differ; path and port stay."""
    given = {"livenessProbe": {"failureThreshold": 9}, "startupProbe": {"periodSeconds": 7}}
    (before, after) = (
        pod_of(the(objects, "Deployment", service))["containers"][0]
        for objects in (charts.rendered("production"), _rendered(tmp_path, {service: given}))
    )
    assert after["livenessProbe"] == {**before["livenessProbe"], "failureThreshold": 9}
    assert after["startupProbe"] == {**before["startupProbe"], "periodSeconds": 7}
    assert after["readinessProbe"] == before["readinessProbe"]


def test_ingress_and_route_take_labels_and_filters(tmp_path: Path) -> None:
    """Ingress and HTTPRoute take labels, annotations and filters."""
    headers = [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["Via"]}}]
    edge = {"labels": {"team": "edge"}}
    given = {"ingress": edge, "httpRoute": {**edge, "filters": headers}}
    objects = _rendered(tmp_path, {"upload": given})
    for kind in ("Ingress", "HTTPRoute"):
        assert the(objects, kind, "upload")["metadata"]["labels"]["team"] == "edge"
    assert the(objects, "HTTPRoute", "upload")["spec"]["rules"][0]["filters"] == headers


def test_ingress_and_route_match_the_path_prefix(tmp_path: Path) -> None:
    """The path under which a proxy offers Simile is set once; without it all paths match."""
    for prefix, path in (("/simile", "/simile"), (None, "/")):
        objects = _rendered(tmp_path, {"upload": {"pathPrefix": prefix}})
        rule = the(objects, "Ingress", "upload")["spec"]["rules"][0]
        assert rule["http"]["paths"][0]["path"] == path
        (match,) = the(objects, "HTTPRoute", "upload")["spec"]["rules"][0]["matches"]
        assert match["path"] == {"type": "PathPrefix", "value": path}
        variables = pod_of(the(objects, "Deployment", "upload"))["containers"][0]["env"]
        given = [one["value"] for one in variables if one["name"] == "SIMILE_UPLOAD_PATH_PREFIX"]
        assert given == ([prefix] if prefix else [])


def test_remaining_values_reach_their_objects(tmp_path: Path) -> None:
    """Claims, schedules, policies, autoscalers and histories take their values."""
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 600}}
    port = {"ports": [{"port": 9901, "protocol": "TCP"}]}
    objects = _rendered(
        tmp_path,
        {
            "revisionHistoryLimit": 2,
            "podSecurity": {"supplementalGroups": [2000], "seLinuxOptions": {"level": "s0:c1"}},
            "storage": {"index": {"annotations": {"backup": "yes"}}},
            "index": {"timeZone": "Europe/Vienna"},
            "networkPolicy": {"extraIngress": [port]},
            "upload": {"autoscaling": {"behavior": behavior}},
        },
    )
    claim = the(objects, "PersistentVolumeClaim", "index")["metadata"]
    assert claim["annotations"] == {"backup": "yes", "helm.sh/resource-policy": "keep"}
    assert the(objects, "CronJob", "index")["spec"]["timeZone"] == "Europe/Vienna"
    assert the(objects, "HorizontalPodAutoscaler", "upload")["spec"]["behavior"] == behavior
    for service in charts.SERVICES:
        assert port in the(objects, "NetworkPolicy", service)["spec"]["ingress"]
        deployment = the(objects, "Deployment", service)
        assert deployment["spec"]["revisionHistoryLimit"] == 2
        security = pod_of(deployment)["securityContext"]
        assert security["supplementalGroups"] == [2000]
        assert security["seLinuxOptions"] == {"level": "s0:c1"}

"""Tests which objects an upgrade changes, replaces, restarts, and leaves alone."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final

import pytest
import yaml

from tests.support import charts
from tests.support.charts import of_kind, the
from tools.chart import manifests
from tools.chart.manifests import CHART, ROOT, Manifest
from tools.chart.programs import helm, run

SCENARIO = pytest.mark.parametrize("scenario", charts.NAMES)
SECRET: Final = "/api/v1/namespaces/default/secrets/simile-broker"


@SCENARIO
def test_selectors_never_hold_a_version(scenario: str) -> None:
    """Selectors, which are immutable, contain nothing that an upgrade changes."""
    for one in of_kind(charts.rendered(scenario), "Deployment"):
        assert one["spec"]["selector"]["matchLabels"].keys() == {
            "app.kubernetes.io/name",
            "app.kubernetes.io/instance",
            "app.kubernetes.io/component",
        }


@SCENARIO
def test_upgrades_end_no_pod_before_another_is_ready(scenario: str) -> None:
    """Rolling updates surge, but not for GPUs, of which there is none to spare."""
    for service in charts.SERVICES:
        strategy = the(charts.rendered(scenario), "Deployment", service)["spec"]["strategy"]
        spare = 0 if service == "embedder" and scenario in {"gpu", "example-gpu"} else 1
        assert strategy == {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": spare, "maxUnavailable": 1 - spare},
        }


def _template(chart: Path, kind: str, component: str, *options: str) -> Any:
    values = charts.SCENARIOS / "dev.yaml"
    objects = yaml.safe_load_all(
        run(helm(), "template", "simile", chart, "--values", values, *options)
    )
    return the([one for one in objects if one], kind, component)["spec"]["template"]


def test_an_upgrade_restarts_only_what_changed(tmp_path: Path) -> None:
    """A new chart restarts nothing; a new Simile keeps the broker, whose end loses messages."""
    for options in ((), ("--app-version", "9.0.0")):
        run(helm(), "package", CHART, "--version", "9.0.0", *options, "-d", tmp_path)
        newer = tmp_path / "simile-9.0.0.tgz"
        broker = "StatefulSet", "broker"
        assert _template(newer, *broker) == _template(CHART, *broker)
        upload = "Deployment", "upload"
        same = _template(newer, *upload) == _template(CHART, *upload)
        assert same == (not options)
        tagged = (*upload, "--set", "image.tag=1.0.0")
        assert _template(newer, *tagged) == _template(CHART, *tagged)


@pytest.mark.parametrize(
    ("options", "versions"),
    [
        ("image.tag=1.2.3", ["1.2.3", "1.2.3", "1.2.3"]),
        ("image.tag=1.2.3,searcher.image.tag=1.3.0", ["1.2.3", "1.2.3", "1.3.0"]),
        ("image.tag=" + "0" * 62 + "-x", ["0" * 62] * 3),
    ],
)
def test_the_version_label_is_that_of_the_image(options: str, versions: list[str]) -> None:
    """An upgrade by image.tag alone changes the version labels of objects and pods."""
    objects = manifests.render(charts.EXAMPLES / "dev.yaml", options=("--set", options))
    for service, version in zip(charts.SERVICES, versions, strict=True):
        deployment = the(objects, "Deployment", service)
        for metadata in (deployment["metadata"], charts.template_of(deployment)["metadata"]):
            assert metadata["labels"]["app.kubernetes.io/version"] == version
    (job,) = of_kind(objects, "Job")
    assert job["metadata"]["labels"]["app.kubernetes.io/version"] == versions[-1]


def test_a_rotation_names_every_key_of_the_secret() -> None:
    """The documented rotation of the Secret includes the key that KEDA reads."""
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    commands = re.findall(r"create secret generic simile-broker .*?\n(?! )", page, re.DOTALL)
    keys = [set(re.findall(r"--from-literal=([\w-]+)=", command)) for command in commands]
    assert keys == [{"url", "management-url"}] * 2


def test_builds_can_be_suspended() -> None:
    """A suspended build has no job at an upgrade and none by schedule, so a rollback persists."""
    objects = manifests.render(
        charts.SCENARIOS / "production.yaml", options=("--set", "index.suspend=true")
    )
    assert of_kind(objects, "Job") == []
    assert [cron["spec"]["suspend"] for cron in of_kind(objects, "CronJob")] == [True]


@SCENARIO
def test_no_job_holds_a_claim_for_long(scenario: str) -> None:
    """Where uninstalling removes the claim, leftover jobs end by themselves."""
    objects = charts.rendered(scenario)
    for claim in of_kind(objects, "PersistentVolumeClaim"):
        kept = "helm.sh/resource-policy" in claim["metadata"].get("annotations", {})
        for job in of_kind(objects, "Job"):
            assert kept or job["spec"]["ttlSecondsAfterFinished"] <= 3600


def _jobs(*options: str) -> set[str]:
    rendered: list[Manifest] = manifests.render(charts.SCENARIOS / "external.yaml", options=options)
    return {one["metadata"]["name"] for one in of_kind(rendered, "Job")}


def test_a_job_that_changes_is_another_job() -> None:
    """Jobs are immutable: a changed job gets another name, the others stay."""
    before = _jobs()
    assert _jobs("--set", "upload.replicas=5") == before
    assert not _jobs("--set", "index.trees=100") & before


def _answers(objects: list[Manifest]) -> Mapping[str, Any]:
    """Return path -> answer of a cluster that knows the kinds of these objects, and has none."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for version, kind in sorted({(one["apiVersion"], one["kind"]) for one in objects}):
        name = kind.lower()
        plural = f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"
        kinds.setdefault(version, []).append(
            {"name": plural, "kind": kind, "namespaced": True, "verbs": ["get", "patch"]}
        )
    groups = [
        {"name": version.partition("/")[0], "versions": [
            {"groupVersion": version, "version": version.partition("/")[2]}]}
        for version in kinds if "/" in version
    ]  # fmt: skip
    return {
        "/version": {"major": "1", "minor": "37", "gitVersion": "v1.37.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
        **{
            f"/{'apis' if '/' in version else 'api'}/{version}": {
                "kind": "APIResourceList",
                "groupVersion": version,
                "resources": found,
            }
            for version, found in kinds.items()
        },
    }


@contextmanager
def _cluster(answers: Mapping[str, Any]) -> Iterator[str]:
    """Yield the address of a server that gives these answers, and 404 otherwise."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            missing = {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}
            body = json.dumps(answers.get(path, missing)).encode()
            self.send_response(200 if path in answers else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _password(*options: str) -> str:
    values = charts.EXAMPLES / "dev.yaml"
    text = run(helm(), "template", "simile", CHART, "--values", values, *options)
    objects = [one for one in yaml.safe_load_all(text) if one]
    secret = charts.the(objects, "Secret", "broker")["stringData"]
    assert f"simile:{secret['password']}@" in secret["url"]
    assert f"simile:{secret['password']}@" in secret["management-url"]
    return str(secret["password"])


def test_the_dev_brokers_password_survives_upgrades() -> None:
    """The password is generated once: an upgrade reads it from the cluster, and keeps it."""
    assert _password() != _password()
    before = _password()
    data = {"password": base64.b64encode(before.encode()).decode()}
    # Helm first checks whether the Secret belongs to this release.
    metadata = {
        "name": "simile-broker",
        "labels": {"app.kubernetes.io/managed-by": "Helm"},
        "annotations": {
            "meta.helm.sh/release-name": "simile",
            "meta.helm.sh/release-namespace": "default",
        },
    }
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}
    answers = _answers(list(charts.rendered("example-dev")))
    with _cluster({**answers, SECRET: secret}) as address:
        live = ("--dry-run=server", "--disable-openapi-validation", "--kube-apiserver", address)
        assert _password(*live) == before
        assert _password(*live, "--set", "broker.dev.password=mine") == "mine"

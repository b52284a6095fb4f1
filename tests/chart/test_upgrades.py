"""What Helm asks a cluster while it renders, answered by a server that stands for one."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final

import yaml

from tests.support import charts
from tools.chart.manifests import CHART, Manifest
from tools.chart.programs import helm, run

SECRET: Final = "/api/v1/namespaces/default/secrets/simile-broker"


def _answers(objects: list[Manifest]) -> Mapping[str, Any]:
    """Path -> answer of a cluster that knows the kinds of these objects, and has none of them."""
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
    """The address of a server that gives these answers, and 404 to whatever else is asked."""

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
            """Say nothing."""

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


def test_the_dev_brokers_password_outlives_upgrades() -> None:
    """It is made once: an upgrade finds the one of before in the cluster, and keeps it."""
    assert _password() != _password()
    before = _password()
    data = {"password": base64.b64encode(before.encode()).decode()}
    # Helm looks first whether the Secret is this release's.
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

"""Runs k8s/overlays/dev on podman as a cluster does, pod by pod, with RabbitMQ."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support.podman import Pod, answers, build, network, play, wait_for
from tests.support.pods import Changes, Cluster
from tests.support.running import free_port
from tools import images
from tools.chart.programs import kubectl, run

BROKER = "localhost/simile-test-broker"
OVERLAY = images.ROOT / "k8s" / "overlays" / "dev"
_MORE: Mapping[str, Mapping[str, str]] = {
    # Generous timeouts for small and busy machines; probes are tested elsewhere.
    "upload": {"SIMILE_UPLOAD_DEADLINE_SECONDS": "30"},
    "embedder": {"SIMILE_EMBEDDER_WORKERS": "1"},
}


@dataclass(slots=True)
class Running:
    """Runs pods by name, and starts more."""

    cluster: Cluster
    network: str
    nonce: str
    pods: dict[str, Pod] = field(default_factory=dict)
    admin: dict[str, str] = field(default_factory=dict)
    url: str = ""
    start_seconds: dict[str, float] = field(default_factory=dict)

    def start(self, component: str, name: str) -> Pod:
        """Start a pod of that component; returns before it is ready."""
        ports = {}
        if component in {"upload", "embedder", "searcher"}:
            ports["admin"] = free_port()
            self.admin[name] = f"http://127.0.0.1:{ports['admin']}"
        if component == "upload":
            ports["http"] = free_port()
            self.url = f"http://127.0.0.1:{ports['http']}"
        image = BROKER if component == "broker" else None
        changes = Changes(ports, _MORE.get(component, {}), image)
        pod = self.cluster.pod(component, f"{name}-{self.nonce}", changes)
        self.pods[name] = play(pod, self.network, self.cluster.aliases(component))
        return self.pods[name]

    def remove(self, name: str) -> None:
        """Stop that pod."""
        self.pods.pop(name).remove()

    def close(self) -> None:
        """Stop all pods."""
        for name in list(self.pods):
            self.remove(name)

    def ready(self, name: str) -> bool:
        """Return whether /readyz answers 200, as a cluster would probe."""
        return answers(f"{self.admin[name]}/readyz")

    def until_ready(self, name: str) -> float:
        """Wait until the pod is ready; return the seconds."""
        return wait_for(lambda: self.ready(name), self.pods[name])


def objects() -> list[dict[str, Any]]:
    """Return the objects that `kubectl apply -k k8s/overlays/dev` deploys."""
    return list(yaml.safe_load_all(run(kubectl(), "kustomize", OVERLAY)))


@contextmanager
def running(folder: Path) -> Iterator[Running]:
    """Run RabbitMQ, a pod of each service, and the job that builds the sample's index."""
    build(Path(__file__).with_name("broker"), BROKER, BASE=images.LOCAL_BASE)
    nonce = secrets.token_hex(3)
    with ExitStack() as stack:
        name = stack.enter_context(network(f"simile-test-{nonce}"))
        found = Running(Cluster(objects(), folder), name, nonce)
        stack.callback(found.close)
        broker = found.start("broker", "broker")
        wait_for(lambda: "Server startup complete" in broker.log(), broker)
        for component in ("embedder", "upload", "searcher"):
            found.start(component, component)
            # A searcher becomes ready with its first index.
            if component != "searcher":
                found.start_seconds[component] = found.until_ready(component)
        job = found.start("index", "index")
        found.start_seconds["index job"] = wait_for(
            lambda: job.exit_code() is not None, job, ends=True
        )
        assert job.exit_code() == 0, job.log()
        found.until_ready("searcher")
        found.remove("searcher")
        found.start("searcher", "searcher")
        found.start_seconds["searcher"] = found.until_ready("searcher")
        yield found

"""Converts Kubernetes objects for `podman kube play`: single pods without a cluster.

Podman supports only a part of Kubernetes. Therefore controllers become pods, claims and ConfigMaps
become folders of this machine, and references to Secrets and fields become their values. Probes,
hooks and fields for a scheduler are left out; images, arguments, users and security contexts stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Object = Mapping[str, Any]

_LABEL = "app.kubernetes.io/component"
_CONTAINER = ("name", "args", "command", "resources")
_CONTROLLERS = {"Deployment", "StatefulSet", "Job"}


@dataclass(frozen=True, slots=True)
class Changes:
    """Holds the changes that a test makes to a pod; `ports` maps port names to host ports."""

    ports: Mapping[str, int]
    environment: Mapping[str, str]
    image: str | None = None


@dataclass(frozen=True, slots=True)
class Cluster:
    """Holds rendered objects, and the folder of this machine that holds their volumes."""

    objects: Sequence[Object]
    folder: Path

    def of_kind(self, kind: str) -> Iterator[Object]:
        """Return the objects of that kind."""
        return (one for one in self.objects if one["kind"] == kind)

    def controller(self, component: str) -> Object:
        """Return the Deployment, StatefulSet or Job of that component."""
        (found,) = (
            one
            for one in self.objects
            if one["kind"] in _CONTROLLERS and _labels(one["spec"]["template"])[_LABEL] == component
        )
        return found

    def claim(self, name: str) -> Path:
        """Return the folder of this machine that is mounted for that claim."""
        return self.folder / "claims" / name

    def aliases(self, component: str) -> list[str]:
        """Return the names of the Services that select that component."""
        return [
            one["metadata"]["name"]
            for one in self.of_kind("Service")
            if one["spec"]["selector"][_LABEL] == component
        ]

    def pod(self, component: str, name: str, changes: Changes) -> Object:
        """Return a pod of that component in podman's form."""
        controller = self.controller(component)
        spec = controller["spec"]["template"]["spec"]
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": dict(_labels(controller["spec"]["template"]))},
            "spec": {
                "restartPolicy": "Never",
                "securityContext": _known(spec["securityContext"], "runAsUser", "runAsGroup"),
                "containers": [
                    self._container(one, spec["securityContext"], name, changes)
                    for one in spec["containers"]
                ],
                "volumes": [self._volume(one, name) for one in spec["volumes"]],
            },
        }

    def _container(
        self, container: Object, pod_security: Object, pod: str, changes: Changes
    ) -> Object:
        variables = {
            one["name"]: self._value(one, container, pod) for one in container.get("env", ())
        }
        ports = [
            {"containerPort": port["containerPort"], "hostPort": changes.ports[port["name"]],
             "hostIP": "127.0.0.1"}
            for port in container.get("ports", ())
            if port["name"] in changes.ports
        ]  # fmt: skip
        return {
            **_known(container, *_CONTAINER),
            "image": changes.image or container["image"],
            "volumeMounts": [_whole(one) for one in container["volumeMounts"]],
            "imagePullPolicy": "Never",
            "env": [
                {"name": key, "value": value}
                for key, value in {**variables, **changes.environment}.items()
            ],
            "ports": ports,
            # Podman reads the user from the container's security context alone.
            "securityContext": {
                **container["securityContext"],
                **_known(pod_security, "runAsUser", "runAsGroup"),
            },
        }

    def _value(self, variable: Object, container: Object, pod: str) -> str:
        source = variable.get("valueFrom")
        if source is None:
            return str(variable["value"])
        if "fieldRef" in source:
            assert source["fieldRef"]["fieldPath"] == "metadata.name"
            return pod
        if "resourceFieldRef" in source:
            kind, _, resource = source["resourceFieldRef"]["resource"].partition(".")
            return str(container["resources"][kind][resource])
        wanted = source["secretKeyRef"]
        (secret,) = (
            one for one in self.of_kind("Secret") if one["metadata"]["name"] == wanted["name"]
        )
        return str(secret["stringData"][wanted["key"]])

    def _volume(self, volume: Object, pod: str) -> Object:
        if "emptyDir" in volume:
            folder = self.folder / "scratch" / pod / volume["name"]
            mode = 0o1777
        elif "configMap" in volume:
            folder = self.folder / "config" / volume["configMap"]["name"]
            mode = 0o755
        else:
            folder = self.claim(volume["persistentVolumeClaim"]["claimName"])
            mode = 0o1777
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)
        if "configMap" in volume:
            self._write(volume["configMap"]["name"], folder)
        path = {"path": str(folder), "type": "Directory"}
        return {"name": volume["name"], "hostPath": path}

    def _write(self, name: str, folder: Path) -> None:
        (found,) = (one for one in self.of_kind("ConfigMap") if one["metadata"]["name"] == name)
        for key, value in found["data"].items():
            (folder / key).write_text(value)


def _labels(template: Object) -> Mapping[str, str]:
    labels: Mapping[str, str] = template["metadata"]["labels"]
    return labels


def _whole(mount: Object) -> Object:
    """Mount the folder instead of a single file, since podman mounts no single file."""
    if "subPath" not in mount:
        return mount
    path = Path(mount["mountPath"])
    assert path.name == mount["subPath"]
    return {**_known(mount, "name", "readOnly"), "mountPath": str(path.parent)}


def _known(given: Object, *keys: str) -> dict[str, Any]:
    return {key: given[key] for key in keys if key in given}

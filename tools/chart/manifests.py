"""Renders k8s/base and k8s/components from the chart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from tools.chart.programs import helm, run

ROOT: Final = Path(__file__).resolve().parents[2]
CHART: Final = ROOT / "helm" / "simile"
K8S: Final = ROOT / "k8s"

NAMESPACE: Final = "simile"
_BASE: Final = K8S / "values" / "base.yaml"

HEADER: Final = "# Rendered from helm/simile by `make manifests`; change the chart instead.\n"

# Labels that name Helm as the creator of an object, which is wrong for kustomize.
_LABELS_OF_HELM: Final = ("helm.sh/chart", "app.kubernetes.io/managed-by")

Manifest = dict[str, Any]


def render(*values: Path, options: Sequence[str] = ()) -> list[Manifest]:
    """Render the chart with these values, later ones first; hooks and tests included."""
    arguments = ["template", "simile", str(CHART), *options]
    for path in values:
        arguments += ["--values", str(path)]
    return [one for one in yaml.safe_load_all(run(helm(), *arguments)) if one is not None]


def folders() -> Mapping[str, Mapping[str, str]]:
    """Return folder under k8s/ -> file name -> content of all rendered files."""
    base = _rendered()
    known = {_key(one) for one in base}
    made = {"base": _files(base, kind="Kustomization")}
    for values in sorted((K8S / "values").glob("*.yaml")):
        if values != _BASE:
            # A component holds objects that its values add; overlays patch changed objects.
            added = [one for one in _rendered(values) if _key(one) not in known]
            made[f"components/{values.stem}"] = _files(added, kind="Component")
    return made


def _rendered(*more: Path) -> list[Manifest]:
    found = render(_BASE, *more, options=("--namespace", NAMESPACE))
    return [_without_helm(one) for one in _installed(found)]


def _installed(manifests: list[Manifest]) -> Iterator[Manifest]:
    """Leave out hooks: only helm runs them."""
    for one in manifests:
        if "helm.sh/hook" not in one["metadata"].get("annotations", {}):
            yield one


def _key(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def _without_helm(manifest: Manifest) -> Manifest:
    manifest["metadata"].pop("namespace")  # overlays set it
    for metadata in (manifest["metadata"], _template_metadata(manifest)):
        for label in _LABELS_OF_HELM:
            metadata.get("labels", {}).pop(label, None)
        annotations = metadata.get("annotations", {})
        annotations.pop("helm.sh/resource-policy", None)
        if not annotations:
            metadata.pop("annotations", None)
    return manifest


def _template_metadata(manifest: Manifest) -> Manifest:
    template = manifest.get("spec", {}).get("template", {})
    metadata: Manifest = template.get("metadata", {}) if isinstance(template, dict) else {}
    return metadata


def _files(manifests: list[Manifest], *, kind: str) -> dict[str, str]:
    files: dict[str, str] = {}
    for one in manifests:
        component = one["metadata"].get("labels", {}).get("app.kubernetes.io/component", "simile")
        files[f"{component}.yaml"] = files.get(f"{component}.yaml", HEADER) + "---\n" + _dump(one)
    version = "v1beta1" if kind == "Kustomization" else "v1alpha1"
    index = {
        "apiVersion": f"kustomize.config.k8s.io/{version}",
        "kind": kind,
        "resources": sorted(files),
    }
    return {"kustomization.yaml": f"{HEADER}---\n{_dump(index)}", **files}


def _dump(manifest: Manifest) -> str:
    text: str = yaml.dump(
        manifest, Dumper=_Indented, sort_keys=False, width=100, allow_unicode=True
    )
    return text


class _Indented(yaml.SafeDumper):
    """Writes lists indented under their key, as kubectl's docs do; long strings as blocks."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: FBT001, FBT002 (theirs)
        del indentless
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: object) -> bool:
        """Write every object in full."""
        del data
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Indented.add_representer(str, _text)

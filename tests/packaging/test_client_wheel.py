"""Installs the client alone, and searches with the lines that its pages show."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.upload.settings import UploadSettings
from tests.support.pictures import plain_jpeg
from tests.support.threaded import threaded
from tests.unit.upload.conftest import Api, running_api

ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "clients" / "python"
PAGES = [CLIENT / "README.md", ROOT / "README.md", ROOT / "docs" / "api.md"]
FIRST = re.compile(
    r"^```python\n(from simile_client import Simile\n.*?)^```$", re.DOTALL | re.MULTILINE
)
ADDRESS = "http://127.0.0.1:8080"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A running upload service, with stand-ins behind it."""
    with threaded(running_api(tmp_path_factory.mktemp("api"), UploadSettings(port=0))) as api:
        yield api


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the client, built from a copy of the sources."""
    out, source = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("source") / "client"
    shutil.copytree(CLIENT, source, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--no-index", "--wheel-dir", out, source],
        check=True,
    )  # fmt: skip
    (built,) = out.iterdir()
    return built


def test_the_wheel_holds_the_client_alone(wheel: Path) -> None:
    """No server code, and the mark that it is typed; httpx and pydantic are all that it needs."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        needed = re.findall(
            r"^Requires-Dist: ([a-z]+)", archive.read(metadata).decode(), re.MULTILINE
        )
    packages = {name for name in names if ".dist-info/" not in name}
    sources = CLIENT / "src"
    assert packages == {
        path.relative_to(sources).as_posix()
        for path in (sources / "simile_client").iterdir()
        if path.is_file()
    }
    assert "simile_client/py.typed" in packages
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert needed == ["httpx", "pydantic"]


def test_five_lines_search_from_an_empty_environment(
    served: Api, wheel: Path, tmp_path: Path
) -> None:
    """Pip installs the wheel and its dependencies; then the lines of each page print neighbours."""
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*pip, "-c", ROOT / "constraints.txt", wheel], check=True)
    (tmp_path / "photo.jpg").write_bytes(plain_jpeg((9, 90, 200)))
    for page in PAGES:
        lines, *_ = FIRST.findall(page.read_text(encoding="utf-8"))
        assert len(lines.splitlines()) == 5
        assert ADDRESS in lines
        program = lines.replace(ADDRESS, served.url)
        done = subprocess.run(
            [python, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        nearest = served.items[0]
        assert done.stdout.splitlines()[0] == f"1.0 {nearest.label} {nearest.path}"
        assert len(done.stdout.splitlines()) == 3

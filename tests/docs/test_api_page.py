"""Runs the examples of docs/api.md, in each language, against a running upload service."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.upload.settings import UploadSettings
from tests.support.pictures import plain_jpeg
from tests.support.threaded import threaded
from tests.unit.upload.conftest import OPENAPI, Api, running_api
from tools.reference import DOCS, ROOT

PAGE = (DOCS / "api.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# Without it, curl ends with success where the answer is an error.
SHELL = 'set -eu\ncurl() { command curl --fail-with-body "$@" >> answers; }\n'


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A running upload service, with stand-ins behind it."""
    with threaded(running_api(tmp_path_factory.mktemp("api"), UploadSettings(port=0))) as api:
        yield api


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The current folder of the examples, with their images."""
    for number, name in enumerate(("photo.jpg", "other.jpg")):
        (tmp_path / name).write_bytes(plain_jpeg((90 * number, 9, 9)))
    return tmp_path


def _blocks(language: str, api: Api) -> list[str]:
    """The page's blocks of a language, for the running service and its collection."""
    shown = [block for name, block in BLOCK.findall(PAGE) if name == language]
    replaced = {
        "http://127.0.0.1:8080": api.url,
        "pictures": "birds",
        "9b1f03d2c4e5a687": api.items[0].item_id,
    }
    for example, real in replaced.items():
        shown = [block.replace(example, real) for block in shown]
    return shown


def _run(folder: Path, *command: str | Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_commands_for_curl_are_answered(served: Api, folder: Path) -> None:
    """Each answer is a success; files are images."""
    commands = "".join(block for block in _blocks("sh", served) if "curl" in block)
    _run(folder, "sh", "-c", SHELL + commands)
    answers = (folder / "answers").read_text()
    for member in ("neighbors", "results", "vector", "limits", "labels", "items", "ready"):
        assert f'"{member}":' in answers
    for name in ("image.jpg", "thumbnail.jpg"):
        assert (folder / name).read_bytes().startswith(b"\xff\xd8")


def test_the_lines_of_python_run(served: Api, folder: Path) -> None:
    """All of them, one after the other; the errors are those that they handle."""
    program = "\n".join(_blocks("python", served))
    command = [sys.executable, "-c", f"import sys\nsys.path[:0] = {sys.path!r}\n{program}"]
    printed = _run(folder, *command)
    assert "fishes" in printed
    assert served.items[0].path in printed


def test_the_lines_of_javascript_run(served: Api, folder: Path) -> None:
    """Each block follows the first one in a scope of its own."""
    first, *others = _blocks("js", served)
    scoped = "".join(f"{{\n{block}}}\n" for block in others)
    (folder / "examples.mjs").write_text(first + scoped)
    printed = _run(folder, "node", "examples.mjs")
    assert "unknown_collection 404" in printed
    assert served.items[0].item_id in printed


def test_every_route_is_on_the_page() -> None:
    """With its method and path; the pages are left out."""
    routes = {
        f"`{method.upper()} {path}`"
        for path, methods in OPENAPI["paths"].items()
        for method in methods
        if path.startswith("/v1/")
    }
    assert {route for route in routes if route not in PAGE} == set()


def test_all_pages_show_the_same_first_lines() -> None:
    """The lines that an installed client is tested with are on each page."""
    pages = [DOCS / "api.md", ROOT / "clients" / "python" / "README.md", ROOT / "README.md"]
    first = {
        next(block for name, block in BLOCK.findall(page.read_text()) if name == "python")
        for page in pages
    }
    assert len(first) == 1

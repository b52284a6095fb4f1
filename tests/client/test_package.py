"""The package simile_client is current, complete, and typed for its users."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from services.shared.contracts.parameters import Route
from services.upload.query.parameters import names
from simile_client import calls
from simile_client.options import ImageOptions, ItemsOptions, NeighborOptions
from tests.unit.upload.conftest import OPENAPI
from tools import client

PACKAGE = Path(__file__).resolve().parents[2] / "clients" / "python"


def test_the_generated_modules_are_current() -> None:
    """Writing them again changes nothing; else run `make docs`."""
    for path, text in client.modules().items():
        assert path.read_text(encoding="utf-8") == text, path.name


def test_every_route_of_the_api_has_a_call() -> None:
    """Each operation is in `calls`, whose docstrings are method and path; pages are left out."""
    described = {
        f"{method.upper()} {path}."
        for path, methods in OPENAPI["paths"].items()
        for method, operation in methods.items()
        if operation["tags"] != ["page"]
    }
    called = {str(thing.__doc__) for thing in vars(calls).values() if callable(thing)}
    assert described <= called


def test_the_options_are_the_parameters_of_the_api() -> None:
    """Cursor and image are arguments of their own."""
    of_image = ImageOptions.__required_keys__ | ImageOptions.__optional_keys__
    assert of_image | {"cursor", "image_url", "vector"} == names(Route.SEARCH)
    assert NeighborOptions.__optional_keys__ | {"cursor"} == names(Route.SIMILAR)
    assert ItemsOptions.__optional_keys__ | {"cursor"} == names(Route.ITEMS)


def test_programs_of_users_pass_strict_type_checks(tmp_path: Path) -> None:
    """Mypy finds no fault in the examples, and finds a misspelt option."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from simile_client import Simile\n\n"
        'Simile().search("a.jpg", maximum_distance=1)\n'
        'Simile().search("a.jpg", filter={"lable": "cat"})\n'
        "label: int = Simile().search(b'').neighbors[0].label\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary",
         PACKAGE / "examples", wrong],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={"MYPYPATH": str(PACKAGE / "src"), "MYPY_CACHE_DIR": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.stderr == ""
    faults = re.findall(r"^(\S+): error: .*\[([a-z-]+)\]$", done.stdout, re.MULTILINE)
    kinds = ["call-arg", "arg-type", "assignment"]
    assert faults == [(f"wrong.py:{line}", kind) for line, kind in enumerate(kinds, start=3)]

"""The walk of a query and the diagram of modules in docs/architecture.md match the code."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import aiohttp
import pytest

from services.shared.messaging.memory import MemoryBroker
from tests.support.fake_model import FakeModel
from tests.support.one_loop import system
from tests.support.pictures import plain_jpeg
from tools import reference

PAGE = (reference.DOCS / "architecture.md").read_text(encoding="utf-8")
SERVICES = reference.DOCS.parent / "services"
WALK = re.findall(r"^\| \d+ \| `([\w.]+)` \|", PAGE, re.MULTILINE)
ARROWS = re.findall(r"^ +([\w.]+) --> ([\w.]+)$", PAGE.partition("flowchart TD")[2], re.MULTILINE)


def _code(name: str) -> CodeType:
    """Return the code of a function, which is named from its module under `services`."""
    parts = f"services.{name}".split(".")
    lowered = [part.islower() and not part.startswith("_") for part in parts]
    end = lowered.index(False) if False in lowered else len(parts) - 1
    found: Any = importlib.import_module(".".join(parts[:end]))
    for part in parts[end:]:
        found = getattr(found, part)
    code = inspect.unwrap(found).__code__
    assert isinstance(code, CodeType)
    return code


async def test_a_query_calls_the_functions_of_the_walk_in_this_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call of each function since the request was sent comes in the table's order."""
    monkeypatch.setenv("SIMILE_CANARY_SECONDS", "0")  # a canary would call them too
    names, called, sent = {_code(name): name for name in WALK}, dict[str, None](), False

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if sent and event == "call" and frame.f_code in names:
            called.setdefault(names[frame.f_code])

    threading.setprofile(note)
    try:
        async with (
            system(tmp_path, MemoryBroker(), FakeModel()) as running,
            aiohttp.ClientSession(running.url) as session,
        ):
            sys.setprofile(note)
            sent = True
            async with session.post("/v1/search", data=plain_jpeg((200, 90, 40))) as answer:
                assert answer.status == 200
            sent = False
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert len(WALK) > 20
    assert list(called) == WALK


def _package(module: str, packages: set[str]) -> str:
    """Return the longest package that the module is in."""
    while module not in packages:
        module = module.rpartition(".")[0]
    return module


def _packages() -> set[str]:
    folders = {file.parent for file in SERVICES.rglob("*.py") if file.name != "__init__.py"}
    return {".".join(folder.relative_to(SERVICES.parent).parts) for folder in folders}


def _imports() -> Iterator[tuple[str, str]]:
    """Yield the pairs of packages of which the first imports the second."""
    packages = _packages()
    for file in SERVICES.rglob("*.py"):
        importing = ".".join(file.parent.relative_to(SERVICES.parent).parts)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("services"):
                for name in node.names:
                    yield importing, _package(f"{node.module}.{name.name}", packages)


def test_the_diagram_shows_every_package_and_only_true_imports() -> None:
    """Each package under services is in the diagram, and each arrow is an import."""
    shown = {f"services.{end}" for arrow in ARROWS for end in arrow}
    assert shown == _packages() - {"services"}
    imports = set(_imports())
    shared = {(one, "services.shared") for one, other in imports if ".shared" in other}
    arrows = {(f"services.{one}", f"services.{other}") for one, other in ARROWS}
    assert arrows - imports - shared == set()

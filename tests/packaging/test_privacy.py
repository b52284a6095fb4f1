"""Tests that no test patches a private name; ruff's SLF001 finds the private attributes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PATCHES = {"setattr", "delattr"}


def _private_patches(text: str) -> Iterator[str]:
    """Yield the private names that a module's calls of setattr and delattr change."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and _called(node) in PATCHES:
            for argument in node.args[:2]:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    name = argument.value.rpartition(".")[2]
                    if name.startswith("_") and not name.startswith("__"):
                        yield argument.value


def _called(call: ast.Call) -> str:
    match call.func:
        case ast.Name(name) | ast.Attribute(attr=name):
            return name
    return ""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('monkeypatch.setattr(module, "_SECONDS", 0)', ["_SECONDS"]),
        ('patch.setattr("services.module._SECONDS", 0)', ["services.module._SECONDS"]),
        ('setattr(thing, "_field", "_value")', ["_field"]),
        ('monkeypatch.setattr(module, "SECONDS", "_value")', []),
        ('monkeypatch.setattr(thing, "__call__", None)', []),
    ],
)
def test_private_patches_are_found(text: str, found: list[str]) -> None:
    """Names are found in both forms of the call, and values are not."""
    assert list(_private_patches(text)) == found


def test_no_test_patches_a_private_name() -> None:
    """Tests change behaviour through arguments and public names alone."""
    patched = [
        f"{path.relative_to(TESTS)}: {name}"
        for path in sorted(TESTS.rglob("*.py"))
        for name in _private_patches(path.read_text())
    ]
    assert patched == []

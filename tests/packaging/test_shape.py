"""The code keeps its shape: short files, functions and constructors, and small folders."""

from __future__ import annotations

import ast
import functools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2] / "services"
FILES = sorted(ROOT.rglob("*.py"))
LONG_FILES = {"shared/errors.py"}
"""Files whose docstring says why they are longer."""

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
MAX_CONSTRUCTOR_PARAMETERS = 6
MAX_FOLDER_MODULES = 15


@functools.cache
def _functions() -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    return [*_walked()]


def _walked() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{file.relative_to(ROOT)}:{node.name}", node


def test_files_are_short() -> None:
    """A file has at most 300 lines, unless it is a table."""
    lines = {str(file.relative_to(ROOT)): file.read_text().count("\n") for file in FILES}
    assert {name for name, count in lines.items() if count > MAX_FILE_LINES} == LONG_FILES


def test_functions_fit_a_page() -> None:
    """A function has at most 60 lines."""
    lengths = {name: (node.end_lineno or 0) - node.lineno + 1 for name, node in _functions()}
    assert {name for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES} == set()


def test_constructors_take_few_parameters() -> None:
    """A constructor takes at most six parameters besides self."""
    counts = {
        name: len(node.args.posonlyargs + node.args.args + node.args.kwonlyargs) - 1
        for name, node in _functions()
        if node.name == "__init__"
    }
    too_many = {name for name, count in counts.items() if count > MAX_CONSTRUCTOR_PARAMETERS}
    assert too_many == set()


def test_folders_hold_few_modules() -> None:
    """A folder holds at most 15 modules besides `__init__`."""
    counts = Counter(file.parent for file in FILES if file.name != "__init__.py")
    assert {str(folder) for folder, count in counts.items() if count > MAX_FOLDER_MODULES} == set()

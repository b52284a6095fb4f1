"""Commands print whole tables into a pipe, and show control characters of foreign text."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from services.cli import tables

SERVICES = Path(tables.__file__).parent
HOSTILE = "a [/b] \x1b]0;title\x07"


def test_a_table_in_a_pipe_is_as_wide_as_its_content(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal, as in `kubectl logs`, no cell is cut or wrapped at 80 columns."""
    monkeypatch.delenv("COLUMNS", raising=False)
    table = tables.new_table("version", "why")
    row = ("20260729T101112Z-0123abcd", "w" * 300)
    tables.add_row(table, *row)
    tables.console().print(table)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == list(row) for line in lines)
    assert max(map(len, lines)) < 400, "and no wider"


def test_a_width_that_is_set_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """COLUMNS limits the width of a table in a pipe, too."""
    monkeypatch.setenv("COLUMNS", "40")
    table = tables.new_table("why")
    tables.add_row(table, "w" * 300)
    tables.console().print(table)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 40


def test_foreign_text_is_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    """Cells, titles and lines apply neither rich's markup nor a terminal's escape sequences."""
    table = tables.new_table("label", title=HOSTILE)
    tables.add_row(table, HOSTILE)
    tables.console().print(table)
    tables.echo(HOSTILE)
    printed = capsys.readouterr().out
    assert printed.count("a [/b] \\x1b]0;title\\x07") == 3
    assert "\x1b" not in printed
    assert "\x07" not in printed


def test_no_command_prints_past_the_helpers() -> None:
    """Rows, consoles and lines with foreign text come from `services.cli.tables` alone."""
    allowed = {"tables.py", "progress.py"}
    past = [
        f"{path.name}:{node.lineno} {ast.unparse(node.func)}"
        for path in SERVICES.rglob("*.py")
        if path.name not in allowed or path.parent.name == "bench"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and _prints_raw(node)
    ]
    assert past == []


def _prints_raw(call: ast.Call) -> bool:
    called = ast.unparse(call.func)
    if called == "click.echo":
        return not ast.unparse(call.args[0]).startswith("json.dumps(")
    return called in {"Console", "Table"} or called.endswith(".add_row")

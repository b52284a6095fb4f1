"""The progress bar of a long build shows a rate."""

from __future__ import annotations

import io
import sys
import time

import click
import pytest
from rich.console import Console

from services.searcher.progress import RichProgress


@pytest.mark.parametrize("unit", ["trees", ""])
def test_the_rate_has_its_unit(unit: str) -> None:
    """The rate is in units a second, and absent for a stage without units."""
    out = io.StringIO()
    progress = RichProgress(Console(file=out, force_terminal=True, width=120))
    progress.begin("growing", 10, unit)
    for _ in range(4):
        progress.advance(failed=False)
    progress.advance(2, failed=True)
    while "2 failed" not in out.getvalue():
        time.sleep(0.01)
    progress.close()
    assert "6 of 10" in out.getvalue()
    assert (" trees/s" in out.getvalue()) == bool(unit)


def test_what_is_printed_to_a_file_is_not_the_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines for a pipe stay out of the terminal that shows the bar on standard error."""
    terminal, pipe = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", pipe)
    with RichProgress(Console(file=terminal, force_terminal=True)) as progress:
        progress.begin("searching", 2)
        click.echo("a line of JSON")
    assert pipe.getvalue() == "a line of JSON\n"
    assert "a line of JSON" not in terminal.getvalue()


def test_a_bar_without_a_terminal_prints_nothing() -> None:
    """Not even an empty line, which would be in the log of a script."""
    log = io.StringIO()
    with RichProgress(Console(file=log)) as progress:
        progress.begin("searching", 2)
        progress.advance()
    assert log.getvalue() == ""

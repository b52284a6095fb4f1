"""Prints tables of one style, and text from others that can't control the terminal."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Final

import click
from rich.box import SIMPLE
from rich.console import Console, RenderableType
from rich.table import Column, Table
from rich.text import Text

from services.shared.printable import printable_lines

_WIDE: Final = 10_000
"""The columns of a console without a terminal: more than any table has."""


def console(*, stderr: bool = False) -> Console:
    """Return the console of standard output or standard error.

    Where no terminal shows it, such as in `kubectl logs` or a file, a table is as wide as its
    content, unless COLUMNS sets a width.
    """
    stream = sys.stderr if stderr else sys.stdout
    fits = stream.isatty() or "COLUMNS" in os.environ
    return Console(stderr=stderr, width=None if fits else _WIDE)


def echo(text: str, *, err: bool = False) -> None:
    """Print lines that may contain text from others, to standard output or to standard error."""
    click.echo(printable_lines(text), err=err)


def echo_json(value: object) -> None:
    """Print a value as JSON to standard output."""
    click.echo(json.dumps(value, indent=2))


def cell(text: str, style: str = "") -> Text:
    """Return text from others: markup is not interpreted, control characters are escaped."""
    return Text(printable_lines(text), style)


def new_table(*columns: str | Column, title: str | None = None) -> Table:
    """Return an empty table without vertical lines: these are many columns for 80 characters."""
    shown = None if title is None else cell(title, "table.title")
    return Table(*columns, title=shown, box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)


def add_row(table: Table, *cells: RenderableType, style: str = "") -> None:
    """Add a row; a cell that is a string is shown as `cell` shows it."""
    shown = (cell(one) if isinstance(one, str) else one for one in cells)
    table.add_row(*shown, style=style)


def age(created_unix_ms: int) -> str:
    """Return the time since then, in a suitable unit."""
    return span(time.time() - created_unix_ms / 1000)


def span(seconds: float) -> str:
    """Return a duration in a suitable unit; a negative one counts as 0."""
    seconds = max(0.0, seconds)
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"

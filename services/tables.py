"""How the commands' tables look, and how they tell a time that has passed."""

from __future__ import annotations

import time

from rich.box import SIMPLE
from rich.table import Column, Table


def new_table(*columns: str | Column, title: str | None = None) -> Table:
    """A table that leaves room: these are many columns for a terminal of 80."""
    return Table(*columns, title=title, box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)


def age(created_unix_ms: int) -> str:
    """How long ago that was, in the unit that fits."""
    return span(time.time() - created_unix_ms / 1000)


def span(seconds: float) -> str:
    """How long that is, in the unit that fits; nothing is shorter than none."""
    seconds = max(0.0, seconds)
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"

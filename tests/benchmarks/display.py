"""Shows the progress of a long benchmark: a bar on a terminal, a line for each finished step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)


class Display:
    """Shows a known number of steps, and the current one."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=0)

    def expect(self, steps: int) -> None:
        """Add `steps` to the expected steps."""
        self._bar.update(self._task, total=(self._bar.tasks[0].total or 0) + steps)

    def at(self, what: str) -> None:
        """Show the current step."""
        self._bar.update(self._task, description=what)

    def done(self, what: str = "") -> None:
        """Count a finished step; `what` stays on the screen."""
        self._bar.advance(self._task)
        if what:
            self._bar.console.print(what, highlight=False)


@contextmanager
def shown() -> Iterator[Display]:
    """Show a display on standard error."""
    columns = (
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield Display(bar)

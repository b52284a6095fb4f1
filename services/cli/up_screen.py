"""Writes the output of `simile up`: few lines on a terminal, a log and `ready <url>` elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog
from rich.console import Console

from services.cli.index.output import vanished_lines
from services.cli.tables import echo
from services.searcher.build.journal import FailedImage
from services.searcher.build.vanished import Vanished
from services.searcher.progress import Progress, ReportedProgress, RichProgress
from services.shared import lifecycle
from services.shared.errors import SimileError
from services.shared.printable import printable, printable_lines
from services.shared.volume.build_progress import BuildProgress

_log = structlog.get_logger(__name__)

_MAX_NAMED: Final = 10
_NONE_VANISHED: Final = Vanished()


@dataclass(frozen=True, slots=True)
class Served:
    """Describes the collection that `up` serves.

    Attributes:
        collection: its name.
        count: the images that can be searched.
        left_out: the files that can't; None until the folder is compared with the index.
        changed: whether the last build published a version.
        vanished: the images of the version before that are no longer in the folder.
    """

    collection: str
    count: int
    left_out: Sequence[FailedImage] | None
    changed: bool = False
    vanished: Vanished = _NONE_VANISHED


class Screen(Protocol):
    """Takes the reports of what `up` does."""

    @property
    def progress(self) -> Progress:
        """Return the progress that builds report to."""

    def step(self, text: str) -> None:
        """Report a step of the start or of the end."""

    def warn(self, text: str, action: str) -> None:
        """Report a warning; `action` names it in log lines."""

    def ready(self, url: str, served: Served) -> None:
        """Report that a query was answered."""

    def refreshed(self, served: Served) -> None:
        """Report that the index was compared with its folder, after `ready`."""

    def failed(self, error: SimileError) -> None:
        """Report the error that ends the process."""


@dataclass(slots=True)
class LogScreen:
    """Writes log lines, and the line `ready <url>` for scripts."""

    progress: Progress = field(default_factory=lambda: ReportedProgress(_log_progress))

    def step(self, text: str) -> None:
        """Log a step."""
        _log.info(text, action="up")

    def warn(self, text: str, action: str) -> None:
        """Log a warning."""
        _log.warning(text, action=action)

    def ready(self, url: str, served: Served) -> None:
        """Print the line that scripts wait for."""
        self._log_left_out(served)
        echo(f"ready {url}")

    def refreshed(self, served: Served) -> None:
        """Log the result."""
        self._log_left_out(served)
        _log.info("index is current", action="index_current", collection=served.collection,
                  count=served.count, published=served.changed)  # fmt: skip

    def failed(self, error: SimileError) -> None:
        """Log the error."""
        lifecycle.log_failure(error)

    def _log_left_out(self, served: Served) -> None:
        if served.left_out:
            named = [f"{one.path}: {one.detail}" for one in served.left_out[:_MAX_NAMED]]
            _log.warning("files left out", action="files_left_out", collection=served.collection,
                         count=len(served.left_out), first=named)  # fmt: skip
        if served.vanished.count:
            _log.warning("images are no longer there", action="images_vanished",
                         collection=served.collection, count=served.vanished.count,
                         first=list(served.vanished.first))  # fmt: skip


def _log_progress(progress: BuildProgress) -> None:
    _log.info(f"index build: {progress}", action="build_progress", stage=progress.stage,
              done=progress.done, total=progress.total, failed=progress.failed,
              eta_seconds=progress.eta_seconds)  # fmt: skip


class TerminalScreen:
    """Writes for a person: steps, a bar while an index is built, one block when it is ready.

    After that block nothing is written until something happens.
    """

    def __init__(self, console: Console, *, bars: bool) -> None:
        """`bars`: whether builds draw a bar; beside log lines they are log lines."""
        self._console = console
        self._bars = RichProgress(console) if bars else None
        self.progress: Progress = self._bars or ReportedProgress(_log_progress)

    def step(self, text: str) -> None:
        """Print a step."""
        self._print(text)

    def warn(self, text: str, action: str) -> None:
        """Print a warning."""
        self._print(f"warning: {text} ({action})")

    def ready(self, url: str, served: Served) -> None:
        """Remove the bar and print the block that stays."""
        self._close()
        self._print(f"\nready {url}\n")
        self._print(f"  collection  {served.collection}: {_images(served.count)}")
        for line in _left_out(served):
            self._print(line)
        if served.left_out is None:
            self._print("              its folder is being compared with the index meanwhile")
        self._print("  stop        Ctrl-C\n")

    def refreshed(self, served: Served) -> None:
        """Print the result in a line, and what was left out."""
        state = "up to date again" if served.changed else "up to date, nothing has changed"
        self._print(f"  {served.collection} is {state}: {_images(served.count)}")
        for line in _left_out(served):
            self._print(line)

    def failed(self, error: SimileError) -> None:
        """Remove the bar and print the error in a line."""
        self._close()
        sys.stdout.flush()
        echo(f"simile: {error} ({error.code})", err=True)

    def _close(self) -> None:
        if self._bars is not None:
            self._bars.close()

    def _print(self, text: str) -> None:
        # No markup and no wrapping: a URL stays one that can be clicked and copied.
        self._console.print(
            printable_lines(text), markup=False, highlight=False, emoji=False, soft_wrap=True
        )


def _images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"


def _left_out(served: Served) -> Iterator[str]:
    if served.vanished.count:
        first, *more = vanished_lines(served.vanished)
        yield f"  missing     {first}"
        yield from (f"            {line}" for line in more)
    failures = served.left_out or ()
    if not failures:
        return
    yield f"  left out    {len(failures):,} file{'' if len(failures) == 1 else 's'}"
    for failure in failures[:_MAX_NAMED]:
        yield f"              {printable(failure.path)}: {printable(failure.detail)}"
    if len(failures) > _MAX_NAMED:
        yield f"              and {len(failures) - _MAX_NAMED:,} more"

"""Shows how far a command's build is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from services.cli.tables import echo
from services.searcher.progress import Progress, RichProgress, SpokenProgress


@contextlib.contextmanager
def shown_progress() -> Iterator[Progress]:
    """Show the progress on standard error while inside."""
    if sys.stderr.isatty():
        with RichProgress() as bar:
            yield bar
    else:
        yield SpokenProgress(lambda seen: echo(f"index build: {seen}", err=True))

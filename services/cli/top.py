"""`simile top`: shows a running Simile on a terminal, without Grafana."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Final

import click

from services.cli.options import examples, root_option
from services.cli.tables import console, echo_json
from services.shared import lifecycle
from services.shared.settings import SharedSettings, load

_DEFAULT: Final = ("http://127.0.0.1:9090",)


@click.command(
    epilog=examples(
        "simile top",
        "simile top --once",
        "simile top --json --metrics http://10.0.0.5:9090 --metrics http://10.0.0.6:9090",
    )
)
@click.option(
    "--metrics",
    "urls",
    multiple=True,
    help="Admin address of a process (SIMILE_ADMIN_PORT); may be repeated. Default: those of the "
    "`simile up` that runs on the volume, or http://127.0.0.1:9090.",
)
@click.option(
    "--interval",
    type=click.FloatRange(0, min_open=True),
    default=2,
    show_default=True,
    help="Seconds between two updates; rates and times are of this interval.",
)
@click.option("--once", is_flag=True, help="Show one interval and exit, for scripts.")
@click.option("--json", "as_json", is_flag=True, help="Like --once, as JSON.")
@root_option
@lifecycle.exit_on_error
def top(
    *, urls: tuple[str, ...], interval: float, once: bool, as_json: bool, root: Path | None
) -> None:
    """Watch a running Simile: rates, times, queues, replicas, index versions. Ctrl-C ends it."""
    from services.local import running_up
    from services.top import screen
    from services.top.view import shown

    urls = urls or tuple(running_up.admin_urls(load(SharedSettings, root=root).root)) or _DEFAULT
    screen_or_file = console()
    if not (once or as_json):
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(screen.watch(urls, interval, screen_or_file))
        return
    seen = asyncio.run(screen.once(urls, interval))
    if as_json:
        echo_json(seen.to_json())
    else:
        screen_or_file.print(shown(seen))

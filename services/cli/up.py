"""`simile up`: runs all services on this machine, for a terminal or a script."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from yarl import URL

from services.cli.options import (
    ImagesFolder,
    examples,
    folder_options,
    folder_settings,
    require_with,
    root_option,
)
from services.cli.tables import console, echo
from services.shared import lifecycle
from services.shared.telemetry import Telemetry, logs
from services.shared.telemetry.tracing import tracing

if TYPE_CHECKING:
    from services.cli.up_screen import Screen
    from services.local.source import Source
    from services.local.up import LocalSettings

_AMQP_PORT: Final = 5672


@click.command(
    epilog=examples(
        "simile up",
        "simile up --images photos --port 8000",
        "simile up --images photos --processes --embedders 2 --amqp-url amqp://127.0.0.1",
    )
)
@click.option(
    "--images", type=ImagesFolder(), help="The folder of your images; default: a drawn sample."
)
@click.option("--collection", help="The collection's name; default: the folder's.")
@click.option("--watch", is_flag=True, help="Update the index whenever files of the folder change.")
@folder_options
@click.option("--host", help="The address to listen on (SIMILE_UPLOAD_HOST).")
@click.option(
    "--port", type=int, help="The port of the web page (SIMILE_UPLOAD_PORT); 0 takes a free one."
)
@click.option(
    "--admin-port",
    type=int,
    help="The port of metrics and health (SIMILE_ADMIN_PORT); default: 9090, or a free one. With "
    "--processes upload takes it, and the other processes the free ports after it.",
)
@click.option("--processes", is_flag=True, help="Run each service as a process, over RabbitMQ.")
@click.option(
    "--embedders", type=click.IntRange(1), default=1, help="With --processes: the number."
)
@click.option(
    "--searchers", type=click.IntRange(1), default=1, help="With --processes: the number."
)
@click.option("--verbose", is_flag=True, help="On a terminal: print the whole log too.")
@root_option
@click.option("--amqp-url", help="RabbitMQ (SIMILE_AMQP_URL); without: in memory.")
@click.pass_context
@lifecycle.exit_on_error
def up(
    context: click.Context,
    /,
    *,
    images: Path | None,
    collection: str | None,
    watch: bool,
    host: str | None,
    port: int | None,
    admin_port: int | None,
    processes: bool,
    embedders: int,
    searchers: int,
    verbose: bool,
    root: Path | None,
    amqp_url: str | None,
    **folder_flags: bool,
) -> None:
    """Start all services on this machine, and print `ready <url>` when queries are answered.

    The page can be opened earlier, and shows the progress of the index. On a terminal only steps
    and warnings are printed; elsewhere the log is printed as JSON.
    """
    require_with(context, "processes", "embedders", "searchers")
    require_with(context, "images", "watch", *folder_flags)
    from services.local import folder_watch
    from services.local.first_query import require_key
    from services.local.source import source_of
    from services.local.up import LocalSettings

    show = _Show(terminal=sys.stdout.isatty(), verbose=verbose)
    show.first_line()
    given = LocalSettings.read(
        root,
        amqp_url,
        admin_port=admin_port,
        upload={"host": host, "port": port},
        index=folder_settings(**folder_flags),
    )
    require_key(given.upload.api_keys_file)
    if watch:
        folder_watch.require_library()
    source = source_of(given.shared.root, images, collection)
    settings = given.serving(source, quiet=show.quiet)
    logs.configure(settings.shared.log_level, settings.shared.log_format)
    if show.quiet:
        # Each retry would log the error that our own log line reports already.
        for library in ("aio_pika", "aiormq"):
            logging.getLogger(library).setLevel(logging.CRITICAL)
    screen = show.screen()
    counts = {"embedder": embedders, "searcher": searchers} if processes else {}

    async def main(stop: asyncio.Event) -> None:
        await _serve(settings, source, screen, stop, counts, watch=watch)

    lifecycle.run_process(main, settings.shared.event_loop, screen.failed)


@dataclass(frozen=True, slots=True)
class _Show:
    """Chooses the output of `up`."""

    terminal: bool
    verbose: bool

    @property
    def quiet(self) -> bool:
        """Return whether only steps and warnings are printed."""
        return self.terminal and not self.verbose

    def first_line(self) -> None:
        """Print a line before libraries are imported, which takes seconds."""
        if self.terminal:
            echo("starting Simile")

    def screen(self) -> Screen:
        """Return the terminal's screen, or the log's."""
        from services.cli.up_screen import LogScreen, TerminalScreen

        return TerminalScreen(console(), bars=self.quiet) if self.terminal else LogScreen()


async def _serve(
    settings: LocalSettings,
    source: Source,
    screen: Screen,
    stop: asyncio.Event,
    counts: Mapping[str, int],
    *,
    watch: bool,
) -> None:
    """Run until `stop`.

    Args:
        settings: of all services.
        source: the images of the collection.
        screen: prints the progress.
        stop: ends the services.
        counts: the number of child processes by service; empty runs all in this process.
        watch: whether the index follows the changes of the folder.
    """
    from services.local import folder_watch
    from services.local import up as local
    from services.local.index_refresher import IndexBuild, IndexRefresher
    from services.searcher.build.build_metrics import BuildMetrics

    shared = settings.shared
    if shared.amqp_url is not None:
        broker_url = URL(shared.amqp_url.get_secret_value())
        screen.step(f"connecting to RabbitMQ at {broker_url.host}:{broker_url.port or _AMQP_PORT}")
    telemetry = Telemetry(tracing=tracing(shared.tracing, shared.replica))
    measured = BuildMetrics(telemetry.registry)
    hosted = (
        local.child_processes(settings, counts, telemetry, stop)
        if counts
        else local.in_process(settings, telemetry, stop)
    )
    async with hosted as (services, broker):
        work = IndexBuild(shared, settings.index, broker, source, measured)
        await local.up(
            services,
            IndexRefresher(work, screen, folder_watch.changes if watch else None),
            stop=stop,
            on_stop=lambda: screen.step("stopping"),
        )
    await asyncio.to_thread(telemetry.tracing.close)

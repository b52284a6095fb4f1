"""The `simile` command.

Services are imported inside their commands, so that an image needs only its own extra.
"""

from __future__ import annotations

import os
from typing import Final

import click

from services.cli.bench import bench
from services.cli.index.commands import index
from services.cli.index.evaluate import evaluate
from services.cli.keys import keys
from services.cli.model import model, old_export
from services.cli.options import examples
from services.cli.quarantine.commands import quarantine
from services.cli.query.command import query
from services.cli.tables import echo
from services.cli.top import top
from services.cli.up import up
from services.shared import lifecycle
from services.shared.environment import unknown_variables

_SERVICES: Final = frozenset({"upload", "embedder", "searcher"})


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples("simile up --images photos", "simile query cat.jpg", "simile index list"),
)
@click.version_option(package_name="simile-search")
@click.pass_context
def main(context: click.Context) -> None:
    """Image similarity search on your own images and your own machines."""
    # The services log unknown variables themselves.
    if context.invoked_subcommand not in _SERVICES:
        for complaint in unknown_variables(os.environ):
            echo(f"simile: warning: {complaint}", err=True)


@main.command(epilog=examples("simile upload"))
@lifecycle.exit_on_error
def upload() -> None:
    """Run the upload service (HTTP API); settings come from SIMILE_* in the environment."""
    from services.upload.process import main as run

    run()


@main.command(epilog=examples("simile embedder"))
@lifecycle.exit_on_error
def embedder() -> None:
    """Run an embedder; settings come from SIMILE_* in the environment."""
    from services.embedder.process import main as run

    run()


@main.command(epilog=examples("simile searcher"))
@lifecycle.exit_on_error
def searcher() -> None:
    """Run a searcher; settings come from SIMILE_* in the environment."""
    from services.searcher.process import main as run

    run()


for command in (bench, evaluate, index, keys, model, old_export, quarantine, query, top, up):
    main.add_command(command)

"""The `simile` command.

Services are imported inside their commands, so that an image needs only its own extra.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Final

import click

from services.cli.bench import bench
from services.cli.index.commands import index
from services.cli.keys import keys
from services.cli.options import PICTURE_SUFFIXES, OutputFile, root_option, volume_of
from services.cli.quarantine.commands import quarantine
from services.cli.tables import add_row, console, echo, new_table
from services.cli.top import top
from services.cli.up import up
from services.shared import lifecycle
from services.shared.environment import unknown_variables
from services.shared.settings import load

_FOLDER: Final = click.Path(exists=True, file_okay=False, path_type=Path)
_NEW_FOLDER: Final = click.Path(file_okay=False, path_type=Path)
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_DISTANCE: Final = click.FloatRange(0, 2)

_SERVICES: Final = frozenset({"upload", "embedder", "searcher"})

_amqp_url = click.option("--amqp-url", help="RabbitMQ (SIMILE_AMQP_URL); without: in memory.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="simile-search")
@click.pass_context
def main(context: click.Context) -> None:
    """Image similarity search on your own images and your own machines."""
    # The services log unknown variables themselves.
    if context.invoked_subcommand not in _SERVICES:
        for complaint in unknown_variables(os.environ):
            echo(f"simile: warning: {complaint}", err=True)


@main.command()
@lifecycle.exit_on_error
def upload() -> None:
    """Run the upload service (HTTP API); settings come from SIMILE_* in the environment."""
    from services.upload.process import main as run

    run()


@main.command()
@lifecycle.exit_on_error
def embedder() -> None:
    """Run an embedder; settings come from SIMILE_* in the environment."""
    from services.embedder.process import main as run

    run()


@main.command()
@lifecycle.exit_on_error
def searcher() -> None:
    """Run a searcher; settings come from SIMILE_* in the environment."""
    from services.searcher.process import main as run

    run()


@main.command()
@click.option(
    "--models-dir", type=_NEW_FOLDER, help="The folder to export to (SIMILE_EMBEDDER_MODELS_DIR)."
)
@lifecycle.exit_on_error
def export(*, models_dir: Path | None) -> None:
    """Export the model for CPUs, so that embedders start in a second and need no torch."""
    from services.embedder.models.survey import survey
    from services.embedder.settings import EmbedderSettings

    found, rows = survey(load(EmbedderSettings, models_dir=models_dir))
    table = new_table("runtime", "precision", "images/s a core", "images a call", "cosine", "",
                      title=found.facts.model_id)  # fmt: skip
    for row in rows:
        speed = (
            (f"{row.speed.images_per_second:.0f}", str(row.speed.chunk_images))
            if row.speed
            else ("", "")
        )
        cosine = "" if row.cosine is None else f"{row.cosine:.6f}"
        add_row(table, row.library, row.precision, *speed, cosine, row.unfit or "")
    console().print(table)
    echo(f"exported: {found.folder}")


@main.command()
@click.argument("files", type=_FILE, nargs=-1, required=True, metavar="FILE...")
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Simile's address.")
@click.option("--collection", help="The collection to search.")
@click.option(
    "-k", type=click.IntRange(1, 100), default=10, show_default=True, help="Results per page."
)
@click.option(
    "--filter", help='Search only these items: {"label": ["cat"], "attributes": {"by": "Ann"}}.'
)
@click.option("--box", help="Search by this part: LEFT,TOP,WIDTH,HEIGHT as fractions of the image.")
@click.option("--max-distance", type=_DISTANCE, help="The maximum angular distance.")
@click.option("--collapse", type=_DISTANCE, help="Fold items within this distance of a nearer one.")
@click.option(
    "--pages", type=click.IntRange(1), default=1, show_default=True, help="The number of pages."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the answer as JSON; several pages as a list."
)
@lifecycle.exit_on_error
def query(
    *, files: tuple[Path, ...], url: str, pages: int, as_json: bool, **asked: str | float | None
) -> None:
    """Search a running Simile by the image in FILE, or by several at once."""
    from services.clients import api

    parameters = {name: str(value) for name, value in asked.items() if value is not None}
    if len(files) == 1:
        answers = asyncio.run(api.search(url, files[0], parameters, pages=pages))
        if as_json:
            click.echo(json.dumps(answers if pages > 1 else answers[0], indent=2))
        else:
            console().print(api.table_of(answers, answers[0]["collection"]))
        return
    if pages > 1:
        message = "--pages takes one FILE"
        raise click.UsageError(message)
    batch = asyncio.run(api.search_batch(url, files, parameters))
    if as_json:
        click.echo(json.dumps(batch, indent=2))
    failed = False
    for file, result in zip(files, batch["results"], strict=True):
        if "problem" in result:
            failed = True
            problem = result["problem"]
            echo(f"simile: {file}: {problem['detail']} ({problem['code']})", err=True)
        elif not as_json:
            console().print(api.table_of([result["answer"]], str(file)))
    if failed:
        raise SystemExit(lifecycle.ExitCode.FAILED)


main.add_command(bench)
main.add_command(index)
main.add_command(keys)
main.add_command(quarantine)
main.add_command(top)
main.add_command(up)


@main.command()
@click.argument("collection")
@click.option("-k", type=click.IntRange(1, 100), default=10, show_default=True, help="How many.")
@click.option(
    "--sheet",
    type=OutputFile(*PICTURE_SUFFIXES),
    default=Path("evaluation.png"),
    show_default=True,
    help="The file for the contact sheet of queries and their neighbours.",
)
@root_option
@lifecycle.exit_on_error
def evaluate(*, collection: str, k: int, sheet: Path, root: Path | None) -> None:
    """Evaluate a collection's active version: leave-one-out precision@k and top-1, by class."""
    from services.searcher.admin.contact_sheet import draw_contact_sheet
    from services.searcher.admin.evaluation import evaluate as judge

    volume = volume_of(root)
    version = volume.active(collection)
    result = judge(volume, collection, version, k=k)
    table = new_table("label", "images", f"P@{k}", "top-1", title=f"{collection} {version}")
    for row in (*result.classes, result.overall):
        add_row(table, row.label, str(row.count), f"{row.precision:.3f}", f"{row.top1:.3f}")
    console().print(table)
    draw_contact_sheet(volume, collection, version, sheet, k=k)
    echo(f"contact sheet: {sheet}")

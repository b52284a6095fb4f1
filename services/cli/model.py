"""`simile model`: exports the model for CPUs.

The embedder is imported inside the command, so that an image needs only its own extra.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from services.cli.options import examples, json_option
from services.cli.tables import add_row, console, echo, echo_json, new_table
from services.shared import lifecycle
from services.shared.settings import load

if TYPE_CHECKING:
    from services.embedder.models.survey import Row

_NEW_FOLDER: Final = click.Path(file_okay=False, path_type=Path)
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _options(command: _Command) -> _Command:
    """Decorate a command with the options of an export."""
    models_dir = click.option(
        "--models-dir",
        type=_NEW_FOLDER,
        help="The folder to export to (SIMILE_EMBEDDER_MODELS_DIR).",
    )
    return models_dir(json_option(command))


@click.group(epilog=examples("simile model export --models-dir models"))
def model() -> None:
    """Prepare the model that embeds images."""


@model.command(
    epilog=examples("simile model export", "simile model export --models-dir models --json")
)
@_options
@lifecycle.exit_on_error
def export(*, models_dir: Path | None, as_json: bool) -> None:
    """Export the model for CPUs, so that embedders start in a second and need no torch."""
    _export(models_dir, as_json=as_json)


@click.command("export", hidden=True, epilog=examples("simile model export"))
@_options
@lifecycle.exit_on_error
def old_export(*, models_dir: Path | None, as_json: bool) -> None:
    """Do what `simile model export` does, under its former name."""
    echo("simile: warning: `simile export` is now `simile model export`; the old name goes with "
         "the next release", err=True)  # fmt: skip
    _export(models_dir, as_json=as_json)


def _export(models_dir: Path | None, *, as_json: bool) -> None:
    from services.embedder.models.survey import survey
    from services.embedder.settings import EmbedderSettings

    found, rows = survey(load(EmbedderSettings, models_dir=models_dir))
    if as_json:
        echo_json(
            {
                "model_id": found.facts.model_id,
                "folder": str(found.folder),
                "runtimes": [_facts(row) for row in rows],
            }
        )
        return
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


def _facts(row: Row) -> dict[str, object]:
    return {
        "runtime": row.library,
        "precision": row.precision,
        "images_per_second": row.speed and row.speed.images_per_second,
        "images_per_call": row.speed and row.speed.chunk_images,
        "cosine": row.cosine,
        "unfit": row.unfit,
    }

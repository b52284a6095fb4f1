"""`simile index explain` and `duplicates`: report on a collection's active version.

The searcher is imported inside the commands, so that an image needs only its own extra.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import click

from services.cli.index.output import reason, show_plans
from services.cli.options import PICTURE_SUFFIXES, OutputFile, root_option, volume_of
from services.cli.tables import add_row, cell, console, echo, new_table
from services.shared import lifecycle
from services.shared.printable import printable

_PLOT: Final = OutputFile(".png", ".svg", ".pdf")


@click.command()
@click.argument("collection")
@click.argument("version", required=False)
@click.option("--plot", type=_PLOT, help="Draw recall against speed into this PNG, SVG or PDF.")
@root_option
@lifecycle.exit_on_error
def explain(collection: str, version: str | None, plot: Path | None, root: Path | None) -> None:
    """Show every search plan that the build of COLLECTION measured, and why one was chosen."""
    volume = volume_of(root)
    if version is not None:
        volume.require_version(collection, version)
    manifest = volume.manifest(collection, version or volume.active(collection))
    show_plans(manifest)
    echo(reason(manifest))
    if plot is not None:
        from services.searcher.admin.plan_plot import draw_plans

        draw_plans(manifest, plot)
        echo(f"plot: {plot}")


@click.command()
@click.argument("collection")
@click.option(
    "--distance",
    type=click.FloatRange(0, 2, min_open=True),
    default=0.25,
    show_default=True,
    help="The angular distance up to which two images are near-duplicates.",
)
@click.option(
    "--sheet",
    type=OutputFile(*PICTURE_SUFFIXES),
    default=Path("duplicates.png"),
    show_default=True,
    help="The file for the contact sheet.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the groups as JSON, without a contact sheet."
)
@root_option
@lifecycle.exit_on_error
def duplicates(
    *, collection: str, distance: float, sheet: Path, as_json: bool, root: Path | None
) -> None:
    """Report groups of near-duplicates in COLLECTION, as a table and a contact sheet."""
    from services.searcher.admin.contact_sheet import draw_groups
    from services.searcher.admin.duplicates import Group, find_duplicates
    from services.searcher.progress import RichProgress

    volume = volume_of(root)
    version = volume.active(collection)
    with RichProgress() as progress:
        groups = find_duplicates(volume, collection, version, distance, progress)
    if as_json:
        click.echo(json.dumps([group.to_json() for group in groups], indent=2))
        return
    if not groups:
        echo(f"{collection} has no two images within {distance:g} of each other")
        return
    table = new_table("images", "same file", "farthest", "labels", "paths",
                  title=f"Groups of near-duplicates: {len(groups)}")  # fmt: skip

    def show(group: Group) -> None:
        labels = cell(", ".join(group.labels), "bold red" if len(group.labels) > 1 else "")
        paths = "\n".join(printable(item.path) for item in group.items)
        counts = (str(len(group.items)), str(group.same_bytes), f"{group.farthest:.3f}")
        add_row(table, *counts, labels, paths)

    for group in groups:
        show(group)
    console().print(table)
    draw_groups(volume, collection, version, groups, sheet)
    echo(f"contact sheet: {sheet}")

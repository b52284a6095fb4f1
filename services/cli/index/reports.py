"""`simile index explain` and `duplicates`: report on a collection's active version.

The searcher is imported inside the commands, so that an image needs only its own extra.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from services.cli.index.output import plans_json, reason, show_plans
from services.cli.options import (
    PICTURE_SUFFIXES,
    OutputFile,
    collection_argument,
    examples,
    is_given,
    json_option,
    optional_version_argument,
    root_option,
    volume_of,
)
from services.cli.tables import add_row, cell, console, echo, echo_json, new_table
from services.shared import lifecycle
from services.shared.printable import printable

if TYPE_CHECKING:
    from services.searcher.admin.duplicates import Group

_PLOT: Final = OutputFile(".png", ".svg", ".pdf")


@click.command(
    epilog=examples(
        "simile index explain pets",
        "simile index explain pets --plot plans.png",
        "simile index explain pets --json",
    )
)
@collection_argument
@optional_version_argument
@click.option("--plot", type=_PLOT, help="Draw recall against speed into this PNG, SVG or PDF.")
@json_option
@root_option
@lifecycle.exit_on_error
def explain(
    *, collection: str, version: str | None, plot: Path | None, as_json: bool, root: Path | None
) -> None:
    """Show every search plan that the build of COLLECTION measured, and why one was chosen."""
    volume = volume_of(root)
    if version is not None:
        volume.require_version(collection, version)
    manifest = volume.manifest(collection, version or volume.active(collection))
    if as_json:
        echo_json(plans_json(manifest))
    else:
        show_plans(manifest)
        echo(reason(manifest))
    if plot is not None:
        from services.searcher.admin.plan_plot import draw_plans

        draw_plans(manifest, plot)
        echo(f"plot: {plot}", err=as_json)


@click.command(
    epilog=examples(
        "simile index duplicates pets",
        "simile index duplicates pets --distance 0.1 --sheet copies.png",
        "simile index duplicates pets --json > duplicates.json",
    )
)
@collection_argument
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
    help="The file for the contact sheet; with --json it is drawn where this option names it.",
)
@json_option
@root_option
@click.pass_context
@lifecycle.exit_on_error
def duplicates(
    context: click.Context,
    *,
    collection: str,
    distance: float,
    sheet: Path,
    as_json: bool,
    root: Path | None,
) -> None:
    """Report groups of near-duplicates in COLLECTION, as a table and a contact sheet."""
    from services.searcher.admin.contact_sheet import draw_groups
    from services.searcher.admin.duplicates import find_duplicates
    from services.searcher.progress import RichProgress

    volume = volume_of(root)
    version = volume.active(collection)
    with RichProgress() as progress:
        groups = find_duplicates(volume, collection, version, distance, progress)
    if as_json:
        echo_json([group.to_json() for group in groups])
    elif groups:
        _show_groups(groups)
    else:
        echo(f"{collection} has no two images within {distance:g} of each other")
    if groups and (not as_json or is_given(context, "sheet")):
        draw_groups(volume, collection, version, groups, sheet)
        echo(f"contact sheet: {sheet}", err=as_json)


def _show_groups(groups: Sequence[Group]) -> None:
    table = new_table("images", "same file", "farthest", "labels", "paths",
                  title=f"Groups of near-duplicates: {len(groups)}")  # fmt: skip
    for group in groups:
        labels = cell(", ".join(group.labels), "bold red" if len(group.labels) > 1 else "")
        paths = "\n".join(printable(item.path) for item in group.items)
        counts = (str(len(group.items)), str(group.same_bytes), f"{group.farthest:.3f}")
        add_row(table, *counts, labels, paths)
    console().print(table)

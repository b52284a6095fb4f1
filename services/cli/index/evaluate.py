"""`simile index evaluate`: shows how well a collection's labels are found again.

The searcher is imported inside the command, so that an image needs only its own extra.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from services.cli.options import (
    PICTURE_SUFFIXES,
    OutputFile,
    collection_argument,
    examples,
    is_given,
    json_option,
    root_option,
    volume_of,
)
from services.cli.tables import add_row, console, echo, echo_json, new_table
from services.shared import lifecycle

if TYPE_CHECKING:
    from services.searcher.admin.evaluation import Evaluation, Score

_SHEET: Final = Path("evaluation.png")


@click.command(
    epilog=examples(
        "simile index evaluate pets",
        "simile index evaluate pets -k 5 --sheet pets.png",
        "simile index evaluate pets --json",
    )
)
@collection_argument
@click.option(
    "-k",
    type=click.IntRange(1, 100),
    default=10,
    show_default=True,
    help="The number of neighbours of each image.",
)
@click.option(
    "--sheet",
    type=OutputFile(*PICTURE_SUFFIXES),
    default=_SHEET,
    show_default=True,
    help="The file for the contact sheet of queries and their neighbours; with --json it is drawn "
    "where this option names it.",
)
@json_option
@root_option
@click.pass_context
@lifecycle.exit_on_error
def evaluate(
    context: click.Context,
    *,
    collection: str,
    k: int,
    sheet: Path,
    as_json: bool,
    root: Path | None,
) -> None:
    """Show how well the labels of COLLECTION are found again.

    Each labelled image of the active version searches the others. P@k is the share of its k nearest
    with the same label, mAP@k also counts how far in front they are, top-1 is the share of queries
    whose nearest image has the same label. Images without a label, and labels of one image, are
    left out.
    """
    from services.searcher.admin.contact_sheet import draw_contact_sheet
    from services.searcher.admin.evaluation import evaluate as evaluate_labels

    volume = volume_of(root)
    version = volume.active(collection)
    result = evaluate_labels(volume, collection, version, k=k)
    if as_json:
        echo_json({"collection": collection, "index_version": version, **result.to_json()})
    else:
        _show(result, f"{collection} {version}")
    if not as_json or is_given(context, "sheet"):
        draw_contact_sheet(volume, collection, version, sheet, k=k)
        echo(f"contact sheet: {sheet}", err=as_json)


def _show(result: Evaluation, title: str) -> None:
    k = result.k
    table = new_table("label", "images", f"P@{k}", f"mAP@{k}", "top-1", "mistaken for", title=title)
    for score in result.classes:
        add_row(table, score.label, *_figures(score), _mistaken(score))
    table.add_section()
    add_row(table, "macro average", *_figures(result.macro), "")
    add_row(table, "all images", *_figures(result.overall), "")
    console().print(table)
    if result.unlabelled:
        echo(f"left out: {result.unlabelled} without a label")
    if result.single:
        echo(f"left out: {result.single} whose label no other image has")


def _figures(score: Score) -> tuple[str, ...]:
    averages = (score.precision, score.average_precision, score.top1)
    return (str(score.count), *(f"{average:.3f}" for average in averages))


def _mistaken(score: Score) -> str:
    return f"{score.mistaken_for} ({score.mistaken_share:.1%})" if score.mistaken_for else ""

"""`simile index export`: writes a collection's items and vectors for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from services.cli.options import collection_argument, examples, root_option, volume_of
from services.cli.tables import echo
from services.shared import lifecycle


@click.command(
    epilog=examples(
        "simile index export pets pets-export",
        "simile index export pets pets-parquet --format parquet",
    )
)
@collection_argument
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "kind",
    type=click.Choice(["npy", "parquet"]),
    default="npy",
    show_default=True,
    help="npy: vectors.npy, and items.jsonl with a line for each row. parquet: items.parquet; it "
    "needs the extra parquet.",
)
@root_option
@lifecycle.exit_on_error
def export(*, collection: str, folder: Path, kind: str, root: Path | None) -> None:
    """Write the items and vectors of COLLECTION's active version into the new FOLDER.

    Each item has its id, label, path and attributes; the vectors are float32 of length 1.
    collection.json names the index version and the model.
    """
    from services.searcher.admin import export as exporting
    from services.searcher.progress import RichProgress

    volume = volume_of(root)
    writer = exporting.ParquetWriter() if kind == "parquet" else exporting.NumpyWriter()
    with RichProgress() as progress:
        manifest = exporting.export(volume, collection, folder, writer, progress)
    echo(f"exported: {manifest.count} items of {collection} {manifest.version} to {folder}")

"""`simile index delete`: removes a collection from the volume."""

from __future__ import annotations

from pathlib import Path

import click

from services.cli.index.output import MEGABYTE
from services.cli.options import collection_argument, confirm, examples, root_option, volume_of
from services.cli.tables import echo
from services.shared import lifecycle


@click.command(epilog=examples("simile index delete pets", "simile index delete pets --yes"))
@collection_argument
@click.option("--yes", is_flag=True, help="Don't ask for confirmation.")
@root_option
@lifecycle.exit_on_error
def delete(*, collection: str, yes: bool, root: Path | None) -> None:
    """Delete COLLECTION with all its index versions; the images themselves stay.

    Running services notice within a second, and answer queries of the collection with
    unknown_collection. A collection that is being built is not deleted. Copies that `simile index
    copy` made on other volumes stay.
    """
    from services.searcher.admin.removal import delete_collection, find_collection

    volume = volume_of(root)
    found = find_collection(volume, collection)
    versions = f"{found.versions} version{'' if found.versions == 1 else 's'}"
    extent = f"{versions}, {found.bytes / MEGABYTE:.0f} MB"
    confirm(f"Delete {collection} ({extent})?", yes=yes)
    delete_collection(volume, collection)
    echo(f"deleted: {collection} ({extent})")

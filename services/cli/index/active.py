"""`simile index activate`, `rollback` and `unpin`: choose the active version."""

from __future__ import annotations

from pathlib import Path

import click

from services.cli.options import (
    collection_argument,
    examples,
    root_option,
    version_argument,
    volume_of,
)
from services.cli.tables import echo
from services.shared import lifecycle
from services.shared.volume.volume import Volume

_pin_option = click.option(
    "--pin",
    "pinned",
    is_flag=True,
    help="Keep this version active until `unpin`: builds only publish.",
)


@click.command(
    epilog=examples(
        "simile index activate pets 20260729T101112Z-0123abcd",
        "simile index activate pets 20260729T101112Z-0123abcd --pin",
    )
)
@collection_argument
@version_argument
@_pin_option
@root_option
@lifecycle.exit_on_error
def activate(collection: str, version: str, root: Path | None, *, pinned: bool) -> None:
    """Verify VERSION of COLLECTION, and make it the active one."""
    from services.searcher.admin import versions

    volume = volume_of(root)
    versions.activate(volume, collection, version)
    _show_active(volume, collection, version, pinned=pinned)


@click.command(epilog=examples("simile index rollback pets", "simile index rollback pets --pin"))
@collection_argument
@_pin_option
@root_option
@lifecycle.exit_on_error
def rollback(collection: str, root: Path | None, *, pinned: bool) -> None:
    """Verify and activate the version of COLLECTION that precedes the active one."""
    from services.searcher.admin import versions

    volume = volume_of(root)
    version = versions.rollback(volume, collection)
    _show_active(volume, collection, version, pinned=pinned)


@click.command(epilog=examples("simile index unpin pets"))
@collection_argument
@root_option
@lifecycle.exit_on_error
def unpin(collection: str, root: Path | None) -> None:
    """Let builds of COLLECTION activate the versions that they publish."""
    from services.searcher.admin import pin

    volume = volume_of(root)
    pin.unpin(volume, collection)
    active, newest = volume.active(collection), volume.versions(collection)[-1]
    echo(f"unpinned: {collection}; active is {active}")
    if newest != active:
        echo(f"newer: `simile index activate {collection} {newest}`, or the next build")


def _show_active(volume: Volume, collection: str, version: str, *, pinned: bool) -> None:
    """Pin the collection where required; print the active version, and whether it stays."""
    from services.searcher.admin import pin

    if pinned:
        pin.pin(volume, collection)
    echo(f"active: {collection} {version}")
    if pin.pinned(volume, collection):
        echo(f"pinned: builds leave it active, until `simile index unpin {collection}`")
    elif version != volume.versions(collection)[-1]:
        echo("the next build activates its own version; --pin keeps this one active")

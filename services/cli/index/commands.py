"""The commands of `simile index` that build, list, verify, prune and copy versions.

Services are imported inside their commands, so that an image needs only its own extra.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final, get_args

import click
from rich.table import Column

from services.cli.index.active import activate, rollback, unpin
from services.cli.index.output import MEGABYTE, show_report, shown_progress
from services.cli.index.reports import duplicates, explain
from services.cli.options import (
    ImagesFolder,
    require_folder,
    root_option,
    volume_of,
)
from services.cli.tables import add_row, age, console, echo, new_table
from services.shared import lifecycle
from services.shared.errors import BuildFailed
from services.shared.settings import SharedSettings, load
from services.shared.telemetry import logs
from services.shared.volume.manifest import MethodName
from services.shared.volume.volume import Volume

_FOLDER: Final = ImagesFolder()
_SECONDS: Final = click.FloatRange(0, min_open=True)


@click.group()
def index() -> None:
    """Build and manage the index versions of collections."""


for command in (activate, rollback, unpin, explain, duplicates):
    index.add_command(command)


@index.command()
@click.argument("folder", type=_FOLDER, required=False)
@click.option("--collection", help="The collection's name; default: the folder's.")
@click.option("--recall", type=click.FloatRange(0, 1, min_open=True), help="The minimum recall@10.")
@click.option(
    "--method",
    type=click.Choice(["auto", *get_args(MethodName)]),
    help="Try only this search method.",
)
@root_option
@click.option("--amqp-url", help="RabbitMQ (SIMILE_AMQP_URL); without: in memory.")
@lifecycle.exit_on_error
def build(
    *,
    folder: Path | None,
    collection: str | None,
    recall: float | None,
    method: str | None,
    root: Path | None,
    amqp_url: str | None,
) -> None:
    """Embed the images of FOLDER, publish a new index version, and make it the active one.

    Labels are the names of sub-folders, or come from FOLDER/manifest.csv (path, label, any other
    column). Without FOLDER a sample collection is drawn. The build measures several search methods
    and takes the fastest one that reaches the recall. Run the command again after an interruption:
    it continues where it stopped.
    """
    import asyncio

    from services.local import up as local
    from services.local.source import source_of

    settings = local.LocalSettings.read(root, amqp_url, index={"recall": recall, "method": method})
    require_folder(settings.shared.root)
    logs.configure("warning", settings.shared.log_format)
    source = source_of(settings.shared.root, folder, collection)

    async def main(stop: asyncio.Event) -> None:
        report = None
        with shown_progress() as progress, contextlib.suppress(lifecycle.StoppedEarly):
            report = await local.build_index(settings, source, stop=stop, progress=progress)
        if report is None:
            # An exit code other than 0, so that Kubernetes retries a job whose node was drained.
            message = "interrupted; run the same command again to continue"
            raise BuildFailed(message)
        show_report(report)

    lifecycle.run_process(main, settings.shared.event_loop)


@index.command("list")
@root_option
@lifecycle.exit_on_error
def list_versions(root: Path | None) -> None:
    """Show every index version: * is active, "pin" stays active, "held" is in use."""
    from services.searcher.admin import pin, versions

    volume = volume_of(root)
    table = new_table(
        Column("name", overflow="fold"), Column("version", no_wrap=True), "", "images",
        Column("method", no_wrap=True), "recall", "MB", Column("age", no_wrap=True),
    )  # fmt: skip
    for row in versions.list_versions(volume):
        pinned = row.active and pin.pinned(volume, row.collection)
        held = volume.held(row.collection, row.version)
        marks = ["*"] * row.active + ["pin"] * pinned + ["held"] * held
        facts = ["?", "unreadable", "", "", ""]
        if row.manifest is not None:
            manifest = row.manifest
            facts = [
                str(manifest.count),
                manifest.plan.method,
                f"{manifest.recall:.3f}",
                f"{manifest.bytes / MEGABYTE:.0f}",
                age(manifest.created_unix_ms),
            ]
        add_row(table, row.collection, row.version, " ".join(marks), *facts)
    if not table.row_count:
        echo(f"no collection in {volume.root} yet: `simile index build FOLDER` makes one")
        return
    console().print(table)


@index.command()
@click.argument("collection")
@click.argument("version", required=False)
@click.option("--all", "every", is_flag=True, help="Every version.")
@root_option
@lifecycle.exit_on_error
def verify(collection: str, version: str | None, root: Path | None, *, every: bool) -> None:
    """Check every file of VERSION (default: the active one) and its canary queries."""
    from services.searcher.admin import versions
    from services.shared.errors import IndexCorrupt

    volume = volume_of(root)
    chosen = volume.versions(collection) if every else []
    chosen = chosen or [version or volume.active(collection)]
    broken = 0
    for one in chosen:
        try:
            versions.verify(volume, collection, one)
        except IndexCorrupt as error:
            if not every:
                raise
            broken += 1
            echo(f"broken: {collection} {one}: {error}")
        else:
            echo(f"sound: {collection} {one}")
    if broken:
        raise SystemExit(lifecycle.ExitCode.FAILED)


@index.command()
@click.argument("collection")
@click.option(
    "--keep",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="The number of versions to keep besides the active one.",
)
@click.option(
    "--min-age",
    type=click.FloatRange(0),
    default=600,
    show_default=True,
    help="Remove only versions that were not active for so many seconds.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@root_option
@lifecycle.exit_on_error
def prune(*, collection: str, keep: int, min_age: float, dry_run: bool, root: Path | None) -> None:
    """Remove old versions of COLLECTION that no replica uses."""
    from services.searcher.admin import versions

    volume = volume_of(root)
    volume.active(collection)
    rows = versions.prune(volume, collection, keep=keep, min_age_seconds=min_age, dry_run=dry_run)
    table = new_table("version", "", "MB")
    for row in rows:
        fate = "would be removed" if dry_run and row.fate == "removed" else row.fate
        add_row(table, row.version, fate, f"{row.bytes / MEGABYTE:.1f}")
    console().print(table)


@index.command("copy")
@click.argument("source", type=_FOLDER)
@click.option(
    "--follow",
    type=_SECONDS,
    metavar="SECONDS",
    help="Keep copying, and check for changes this often.",
)
@root_option
@lifecycle.exit_on_error
def copy_versions(*, source: Path, follow: float | None, root: Path | None) -> None:
    """Copy the active versions of the volume SOURCE to this volume; remove unused older copies."""
    import asyncio

    from services.searcher.admin import copying

    shared = load(SharedSettings, root=root)
    require_folder(shared.root)
    origin, target = Volume(source), Volume(shared.root)
    if follow is None:
        for copied in (copying.copy(origin, target, name) for name in origin.collections()):
            if copied is not None:
                echo(f"copied: {copied.collection} {copied.version}")
        return
    logs.configure(shared.log_level, shared.log_format)

    async def main(stop: asyncio.Event) -> None:
        await copying.follow(origin, target, every_seconds=follow, stop=stop)

    lifecycle.run_process(main, shared.event_loop)

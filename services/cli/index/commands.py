"""The commands of `simile index` that build, list, verify, prune and copy versions.

Services are imported inside their commands, so that an image needs only its own extra.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Final, get_args

import click

from services.cli.index.active import activate, rollback, unpin
from services.cli.index.delete import delete
from services.cli.index.evaluate import evaluate
from services.cli.index.export import export
from services.cli.index.output import (
    MEGABYTE,
    ListedVersion,
    show_report,
    show_versions,
    shown_progress,
)
from services.cli.index.reports import duplicates, explain
from services.cli.options import (
    ImagesFolder,
    collection_argument,
    examples,
    folder_options,
    folder_settings,
    json_option,
    optional_version_argument,
    require_folder,
    require_with,
    root_option,
    volume_of,
)
from services.cli.tables import add_row, console, echo, echo_json, new_table
from services.shared import lifecycle
from services.shared.errors import BuildFailed
from services.shared.settings import SharedSettings, load
from services.shared.telemetry import logs
from services.shared.volume.manifest import MethodName
from services.shared.volume.volume import Volume

_FOLDER: Final = ImagesFolder()
_SECONDS: Final = click.FloatRange(0, min_open=True)


@click.group(epilog=examples("simile index build photos --collection pets", "simile index list"))
def index() -> None:
    """Build and manage the index versions of collections."""


for command in (activate, delete, duplicates, evaluate, explain, export, rollback, unpin):
    index.add_command(command)


@index.command(
    epilog=examples(
        "simile index build photos",
        "simile index build photos --collection pets --recall 0.999",
        "simile index build photos --method annoy --amqp-url amqp://127.0.0.1",
    )
)
@click.argument("folder", type=_FOLDER, required=False)
@click.option("--collection", help="The collection's name; default: the folder's.")
@click.option("--recall", type=click.FloatRange(0, 1, min_open=True), help="The minimum recall@10.")
@click.option(
    "--method",
    type=click.Choice(["auto", *get_args(MethodName)]),
    help="Try only this search method.",
)
@folder_options
@root_option
@click.option("--amqp-url", help="RabbitMQ (SIMILE_AMQP_URL); without: in memory.")
@click.pass_context
@lifecycle.exit_on_error
def build(
    context: click.Context,
    /,
    *,
    folder: Path | None,
    collection: str | None,
    recall: float | None,
    method: str | None,
    root: Path | None,
    amqp_url: str | None,
    **folder_flags: bool,
) -> None:
    """Embed the images of FOLDER, publish a new index version, and make it the active one.

    Labels are the names of sub-folders, or come from FOLDER/manifest.csv (path, label, any other
    column). Without FOLDER a sample collection is drawn. The build measures several search methods
    and takes the fastest one that reaches the recall. Run the command again after an interruption:
    it continues where it stopped.
    """
    require_with(context, "folder", *folder_flags)
    import asyncio

    from services.local import up as local
    from services.local.source import source_of

    index = {"recall": recall, "method": method, **folder_settings(**folder_flags)}
    settings = local.LocalSettings.read(root, amqp_url, index=index)
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


@index.command("list", epilog=examples("simile index list", "simile index list --json"))
@json_option
@root_option
@lifecycle.exit_on_error
def list_versions(*, as_json: bool, root: Path | None) -> None:
    """Show every index version: * is active, "pin" stays active, "held" is in use."""
    from services.searcher.admin import pin, versions

    volume = volume_of(root)
    rows = [
        ListedVersion(
            row=row,
            pinned=row.active and pin.pinned(volume, row.collection),
            held=volume.held(row.collection, row.version),
        )
        for row in versions.list_versions(volume)
    ]
    if as_json:
        echo_json([row.to_json() for row in rows])
    elif rows:
        show_versions(rows)
    else:
        echo(f"no collection in {volume.root} yet: `simile index build FOLDER` makes one")


@index.command(epilog=examples("simile index verify pets", "simile index verify pets --all --json"))
@collection_argument
@optional_version_argument
@click.option("--all", "every", is_flag=True, help="Every version.")
@json_option
@root_option
@lifecycle.exit_on_error
def verify(
    *, collection: str, version: str | None, every: bool, as_json: bool, root: Path | None
) -> None:
    """Check every file of VERSION (default: the active one) and its canary queries."""
    from services.searcher.admin import versions
    from services.shared.errors import IndexCorrupt

    volume = volume_of(root)
    if every and version is not None:
        message = "give VERSION or --all, not both"
        raise click.UsageError(message)
    chosen = volume.versions(collection) if every else []
    faults: dict[str, str | None] = {}
    for one in chosen or [version or volume.active(collection)]:
        try:
            versions.verify(volume, collection, one)
        except IndexCorrupt as error:
            if not every:
                raise
            faults[one] = str(error)
        else:
            faults[one] = None
    if as_json:
        echo_json([{"version": one, "fault": fault} for one, fault in faults.items()])
    else:
        for one, fault in faults.items():
            state = f"sound: {collection} {one}"
            echo(state if fault is None else f"broken: {collection} {one}: {fault}")
    if any(faults.values()):
        raise SystemExit(lifecycle.ExitCode.FAILED)


@index.command(
    epilog=examples("simile index prune pets --dry-run", "simile index prune pets --keep 2")
)
@collection_argument
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
@json_option
@root_option
@lifecycle.exit_on_error
def prune(
    *,
    collection: str,
    keep: int,
    min_age: float,
    dry_run: bool,
    as_json: bool,
    root: Path | None,
) -> None:
    """Remove old versions of COLLECTION that no replica uses."""
    from services.searcher.admin import versions

    volume = volume_of(root)
    volume.active(collection)
    rows = versions.prune(volume, collection, keep=keep, min_age_seconds=min_age, dry_run=dry_run)
    if as_json:
        echo_json([{**asdict(row), "dry_run": dry_run} for row in rows])
        return
    table = new_table("version", "", "MB")
    for row in rows:
        fate = "would be removed" if dry_run and row.fate == "removed" else row.fate
        add_row(table, row.version, fate, f"{row.bytes / MEGABYTE:.1f}")
    console().print(table)


@index.command(
    "copy",
    epilog=examples(
        "simile index copy /mnt/indexes --root /var/lib/simile",
        "simile index copy /mnt/indexes --follow 10",
    ),
)
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

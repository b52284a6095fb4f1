"""The `simile` command: every way to start, build, ask and judge.

Services are imported inside their commands, so that an image needs only its own extra.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.console import Console
from rich.table import Column, Table

from services.shared import lifecycle
from services.shared.settings import SharedSettings, load
from services.shared.telemetry import logs

if TYPE_CHECKING:
    from services.local import LocalSettings, Services
    from services.searcher.builder import BuildReport
    from services.shared.messaging.broker import Broker

_FOLDER: Final = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)

_root = click.option(
    "--root", type=click.Path(path_type=Path), help="The volume of the indexes (SIMILE_ROOT)."
)
_amqp_url = click.option("--amqp-url", help="RabbitMQ (SIMILE_AMQP_URL); without: in memory.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="simile-search")
def main() -> None:
    """Image similarity search on your own images and your own machines."""


@main.command()
@click.option("--images", type=_FOLDER, help="Your images; without: a drawn sample collection.")
@click.option("--collection", help="The collection's name; default: the folder's.")
@click.option("--host", help="Where the page listens (SIMILE_UPLOAD_HOST).")
@click.option("--port", type=int, help="The page's port (SIMILE_UPLOAD_PORT); 0 takes a free one.")
@click.option("--processes", is_flag=True, help="Real processes over RabbitMQ.")
@click.option("--embedders", type=click.IntRange(1), default=1, help="With --processes: how many.")
@click.option("--searchers", type=click.IntRange(1), default=1, help="With --processes: how many.")
@_root
@_amqp_url
@lifecycle.named_errors
def up(
    *,
    images: Path | None,
    collection: str | None,
    host: str | None,
    port: int | None,
    processes: bool,
    embedders: int,
    searchers: int,
    root: Path | None,
    amqp_url: str | None,
) -> None:
    """Start everything on this machine and print `ready <url>` when it can answer."""
    from services import local
    from services.children import ChildProcesses
    from services.searcher.progress import RichProgress

    settings = _local_settings(root, amqp_url, host=host, port=port)
    shared = settings.shared
    logs.configure(shared.log_level, shared.log_format)

    async def main(stop: asyncio.Event) -> None:
        source = await asyncio.to_thread(local.source_of, shared, images, collection)

        async def run(services: Services, broker: Broker) -> None:
            with RichProgress() as progress:
                keeper = local.Keeper(settings, broker, source, progress)
                await local.up(services, keeper, stop=stop, announce=_announce)

        if processes:
            children = ChildProcesses(
                shared, settings.upload, embedders=embedders, searchers=searchers
            )
            async with local.local_broker(shared, "simile up") as broker:
                await run(children, broker)
        else:
            async with local.in_process(settings) as (services, broker):
                await run(services, broker)

    lifecycle.run_process(main)


def _announce(url: str) -> None:
    click.echo(f"ready {url}")


def _local_settings(
    root: Path | None, amqp_url: str | None, **upload_overrides: object
) -> LocalSettings:
    from services.embedder.settings import EmbedderSettings
    from services.local import LocalSettings
    from services.searcher.settings import IndexSettings, SearcherSettings
    from services.upload.settings import UploadSettings

    return LocalSettings(
        shared=load(SharedSettings, root=root, amqp_url=amqp_url),
        upload=load(UploadSettings, **upload_overrides),
        embedder=load(EmbedderSettings),
        searcher=load(SearcherSettings),
        index=load(IndexSettings),
    )


@main.command()
@lifecycle.named_errors
def upload() -> None:
    """Run the HTTP front; settings come from SIMILE_* in the environment."""
    from services.upload.__main__ import main as run

    run()


@main.command()
@lifecycle.named_errors
def embedder() -> None:
    """Run an embedder; settings come from SIMILE_* in the environment."""
    from services.embedder.__main__ import main as run

    run()


@main.command()
@lifecycle.named_errors
def searcher() -> None:
    """Run a searcher; settings come from SIMILE_* in the environment."""
    from services.searcher.__main__ import main as run

    run()


@main.group()
def index() -> None:
    """Build and look after the collections' index versions."""


@index.command("build")
@click.argument("folder", type=_FOLDER)
@click.option("--collection", help="The collection's name; default: the folder's.")
@_root
@_amqp_url
@lifecycle.named_errors
def index_build(
    folder: Path, collection: str | None, root: Path | None, amqp_url: str | None
) -> None:
    """Embed the images of FOLDER, publish a new index version, and make it the active one.

    Labels are the names of sub-folders, or come from FOLDER/manifest.csv (path, label, any other
    column). Run again after an interruption: it goes on where it was.
    """
    from services import local
    from services.searcher.progress import RichProgress

    settings = _local_settings(root, amqp_url)
    logs.configure("warning", settings.shared.log_format)
    source = local.source_of(settings.shared, folder, collection)

    async def main(stop: asyncio.Event) -> None:
        with RichProgress() as progress:
            report = await local.build_index(settings, source, stop=stop, progress=progress)
        if report is None:
            click.echo("interrupted; run the same command again to go on from here", err=True)
            return
        _show_report(report)

    lifecycle.run_process(main)


def _show_report(report: BuildReport) -> None:
    if report.failures:
        table = Table("file", "code", "why", title=f"{len(report.failures)} files left out")
        for failure in report.failures:
            table.add_row(failure.path, failure.code, failure.detail)
        Console(stderr=True).print(table)
    verb = "published" if report.published else "unchanged:"
    click.echo(
        f"{verb} {report.version}: {report.count} images "
        f"({report.embedded} embedded, {report.reused} reused, {len(report.failures)} left out) "
        f"in {report.seconds:.1f} s, recall@10 {report.recall:.3f}"
    )


@index.command("list")
@_root
@lifecycle.named_errors
def index_list(root: Path | None) -> None:
    """Show every collection's index versions; the active one is marked."""
    from services.searcher.publisher import list_versions
    from services.shared.collection import Volume

    table = Table("collection", Column("version", no_wrap=True), "active", "images", "recall@10",
                  Column("model", overflow="fold"))  # fmt: skip
    for row in list_versions(Volume(load(SharedSettings, root=root).root)):
        facts = ("?", "?", "unreadable")
        if row.manifest is not None:
            manifest = row.manifest
            facts = (str(manifest.count), f"{manifest.recall:.3f}", manifest.model_id)
        table.add_row(row.collection, row.version, "*" if row.active else "", *facts)
    Console().print(table)


@index.command("activate")
@click.argument("collection")
@click.argument("version")
@_root
@lifecycle.named_errors
def index_activate(collection: str, version: str, root: Path | None) -> None:
    """Verify VERSION of COLLECTION and make it the one that answers."""
    from services.searcher.publisher import verify
    from services.shared.collection import Volume

    volume = Volume(load(SharedSettings, root=root).root)
    verify(volume, collection, version)
    volume.activate(collection, version)
    click.echo(f"active: {collection} {version}")


@index.command("verify")
@click.argument("collection")
@click.argument("version", required=False)
@_root
@lifecycle.named_errors
def index_verify(collection: str, version: str | None, root: Path | None) -> None:
    """Check every file of VERSION (default: the active one) and its canary queries."""
    from services.searcher.publisher import verify
    from services.shared.collection import Volume

    volume = Volume(load(SharedSettings, root=root).root)
    version = version or volume.active(collection)
    verify(volume, collection, version)
    click.echo(f"sound: {collection} {version}")


@main.command()
@click.argument("file", type=_FILE)
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Simile's address.")
@click.option("--collection", help="Which collection to search.")
@click.option("-k", type=click.IntRange(1, 100), default=10, show_default=True, help="How many.")
@click.option("--json", "as_json", is_flag=True, help="The answer as it came.")
@lifecycle.named_errors
def query(*, file: Path, url: str, collection: str | None, k: int, as_json: bool) -> None:
    """Search a running Simile by the image in FILE."""
    from services.client import search

    answer = asyncio.run(search(url, file.read_bytes(), collection=collection, k=k))
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    table = Table("", "similarity", "label", "item", title=f"{answer['collection']}")
    for rank, neighbor in enumerate(answer["neighbors"], start=1):
        table.add_row(
            str(rank), f"{neighbor['similarity']:.4f}", neighbor["label"], neighbor["item_id"]
        )
    Console().print(table)


@main.command()
@click.argument("collection")
@click.option("-k", type=click.IntRange(1, 100), default=10, show_default=True, help="How many.")
@click.option(
    "--sheet",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("evaluation.png"),
    show_default=True,
    help="Where to write the contact sheet of queries and their neighbours.",
)
@_root
@lifecycle.named_errors
def evaluate(*, collection: str, k: int, sheet: Path, root: Path | None) -> None:
    """Judge a collection's active version: leave-one-out precision@k and top-1, a class a row."""
    from services.searcher.contact_sheet import draw_contact_sheet
    from services.searcher.evaluation import evaluate as judge
    from services.shared.collection import Volume

    volume = Volume(load(SharedSettings, root=root).root)
    version = volume.active(collection)
    result = judge(volume, collection, version, k=k)
    table = Table("label", "images", f"P@{k}", "top-1", title=f"{collection} {version}")
    for row in (*result.classes, result.overall):
        table.add_row(row.label, str(row.count), f"{row.precision:.3f}", f"{row.top1:.3f}")
    Console().print(table)
    draw_contact_sheet(volume, collection, version, sheet, k=k)
    click.echo(f"contact sheet: {sheet}")

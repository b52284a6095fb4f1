"""The commands of `simile quarantine`: list, show, replay, drop.

Services are imported inside their commands, so that an image needs only its own extra.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import click
from rich.table import Column

from services.cli.options import OutputFile, confirm, examples, json_option
from services.cli.tables import add_row, age, console, echo, echo_json, new_table
from services.shared import lifecycle
from services.shared.settings import SharedSettings, load
from services.shared.telemetry import logs

if TYPE_CHECKING:
    from services.cli.quarantine.visit import Held
    from services.shared.messaging.broker import Broker

_T = TypeVar("_T")

_NEW_FILE: Final = OutputFile()
_KILOBYTE: Final = 1e3

_amqp_url = click.option("--amqp-url", help="RabbitMQ (SIMILE_AMQP_URL).")


@click.group(epilog=examples("simile quarantine list", "simile quarantine drop --all --yes"))
def quarantine() -> None:
    """Manage quarantined messages: images that crashed embedders or broke the model."""


@quarantine.command(
    "list", epilog=examples("simile quarantine list", "simile quarantine list --json")
)
@json_option
@_amqp_url
@lifecycle.exit_on_error
def list_records(*, as_json: bool, amqp_url: str | None) -> None:
    """List the records, the oldest first."""
    from services.cli.quarantine.visit import visit

    async def look(broker: Broker) -> list[Held]:
        async with visit(broker) as held:
            return list(held)

    held = _with_broker(amqp_url, look)
    if as_json:
        echo_json([_facts(one) for one in held])
        return
    table = new_table(
        Column("id", no_wrap=True), Column("age", no_wrap=True), "reason", "queue", "format",
        Column("kB", justify="right"), Column("deaths", justify="right"), "image",
    )  # fmt: skip
    for one in held:
        record = one.record
        add_row(
            table,
            record.record_id,
            age(record.set_aside_unix_ms),
            record.reason,
            record.queue.removeprefix("simile."),
            record.format or "?",
            f"{record.size_bytes / _KILOBYTE:.1f}",
            str(record.deaths or ""),
            "kept" if one.request is not None else "",
        )
    console().print(table)
    echo(f"{len(held)} in quarantine")


@quarantine.command(
    epilog=examples(
        "simile quarantine show 0123abcd",
        "simile quarantine show 0123abcd --image image.bin",
        "simile quarantine show 0123abcd --json",
    )
)
@click.argument("record_id")
@click.option("--image", type=_NEW_FILE, help="Write the image to this file, where it was kept.")
@json_option
@_amqp_url
@lifecycle.exit_on_error
def show(*, record_id: str, image: Path | None, as_json: bool, amqp_url: str | None) -> None:
    """Show a record. Its image may be harmful: open it only in a sandbox."""
    from services.cli.quarantine.visit import find, visit
    from services.shared.errors import NotReplayable

    async def look(broker: Broker) -> Held:
        async with visit(broker) as held:
            return find(held, record_id)

    one = _with_broker(amqp_url, look)
    if as_json:
        echo_json(_facts(one))
    else:
        table = new_table("", "", title=one.record.record_id)
        for name, value in _facts(one).items():
            add_row(table, name, str(value))
        console().print(table)
    if image is not None:
        if one.request is None:
            message = f"record {record_id} holds no image"
            raise NotReplayable(message)
        image.write_bytes(one.request.image)
        echo(f"image: {image}", err=as_json)


@quarantine.command(epilog=examples("simile quarantine replay 0123abcd --timeout 10"))
@click.argument("record_id")
@click.option(
    "--timeout",
    type=click.FloatRange(0, 60, min_open=True),
    default=30,
    show_default=True,
    help="How long to wait for an embedder, in seconds.",
)
@_amqp_url
@lifecycle.exit_on_error
def replay(*, record_id: str, timeout: float, amqp_url: str | None) -> None:
    """Send the record's image to an embedder again, and show the result.

    The record is dropped when there is an answer; an image that fails again makes a new record.
    """
    from services.cli.quarantine import visit as records
    from services.shared.contracts import Failure

    async def again(broker: Broker) -> str | Failure:
        async with records.visit(broker) as held:
            one = records.find(held, record_id)
            return await records.replay(broker, one, timeout_seconds=timeout)

    outcome = _with_broker(amqp_url, again)
    if isinstance(outcome, Failure):
        echo(f"failed again: {record_id}: {outcome.detail} ({outcome.code})")
        raise SystemExit(lifecycle.ExitCode.FAILED)
    echo(f"embedded: {record_id} by {outcome}; dropped from quarantine")


@quarantine.command(
    epilog=examples("simile quarantine drop 0123abcd", "simile quarantine drop --all --yes")
)
@click.argument("record_ids", nargs=-1, metavar="[RECORD_ID]...")
@click.option("--all", "every", is_flag=True, help="Every record.")
@click.option("--yes", is_flag=True, help="Don't ask for confirmation.")
@_amqp_url
@lifecycle.exit_on_error
def drop(*, record_ids: tuple[str, ...], every: bool, yes: bool, amqp_url: str | None) -> None:
    """Delete records."""
    from services.cli.quarantine.visit import find, visit

    if every == bool(record_ids):
        message = "give the ids of the records to drop, or --all"
        raise click.UsageError(message)
    confirm(f"Drop {'every record' if every else ', '.join(record_ids)}?", yes=yes)

    async def forget(broker: Broker) -> int:
        async with visit(broker) as held:
            chosen = held if every else [find(held, record_id) for record_id in record_ids]
            for one in chosen:
                one.drop()
            return len(chosen)

    echo(f"dropped: {_with_broker(amqp_url, forget)}")


def _facts(held: Held) -> dict[str, object]:
    kept = held.request is not None
    return {**dataclasses.asdict(held.record), "type": held.delivery.type, "image_kept": kept}


def _with_broker(amqp_url: str | None, work: Callable[[Broker], Awaitable[_T]]) -> _T:
    shared = load(SharedSettings, amqp_url=amqp_url)
    logs.configure("warning", shared.log_format)

    async def main() -> _T:
        async with _broker(shared) as broker:
            return await work(broker)

    return asyncio.run(main())


@contextlib.asynccontextmanager
async def _broker(shared: SharedSettings) -> AsyncIterator[Broker]:
    from services.shared.messaging import topology
    from services.shared.process import amqp_broker

    broker = amqp_broker(shared, "simile quarantine")
    await broker.start(topology.ALL)
    try:
        yield broker
    finally:
        await broker.close()

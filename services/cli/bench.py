"""`simile bench`: measures a running Simile, and writes a table, JSON and a page.

The generator is imported inside the command, so that an image needs only its own extra.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import click

from services.cli.options import (
    ImagesFolder,
    OutputFile,
    examples,
    is_given,
    require_with,
    url_option,
)
from services.cli.tables import console
from services.clients.api import key_headers
from services.shared import lifecycle
from services.shared.errors import MissingExtra

_DEFAULT_CONCURRENCY: Final = (1, 8, 32)
_OUT: Final = OutputFile()
_SECONDS: Final = click.FloatRange(0, min_open=True)

_Number = TypeVar("_Number", int, float)


def _counts(context: click.Context, option: click.Parameter, value: str | None) -> Sequence[int]:
    del context, option
    return [] if value is None else _numbers(int, value)


def _rates(context: click.Context, option: click.Parameter, value: str | None) -> Sequence[float]:
    del context, option
    return [] if value is None else _numbers(float, value)


def _numbers(kind: Callable[[str], _Number], value: str) -> Sequence[_Number]:
    """Parse a list of positive numbers, separated by commas."""
    try:
        numbers = [kind(part) for part in value.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number < math.inf for number in numbers):
        message = f"{value} is not a list of positive numbers, such as 1,8,32"
        raise click.BadParameter(message)
    return numbers


def _headers(
    context: click.Context, option: click.Parameter, values: Sequence[str]
) -> Mapping[str, str]:
    """Parse the headers, each as NAME:VALUE."""
    del context, option
    headers = key_headers()
    for value in values:
        name, colon, content = value.partition(":")
        if not colon or not name.strip() or not value.isprintable():
            message = f"{value} is not a header, such as 'Authorization: Bearer ...'"
            raise click.BadParameter(message)
        headers[name.strip()] = content.strip()
    return headers


@click.command(
    epilog=examples(
        "simile bench --images photos",
        "simile bench --images photos --rate 10,20 --report report.html",
        "simile bench --images photos --find-capacity --p99 0.5 --target-rate 500",
        "simile bench --images photos --json - > results.json",
    )
)
@url_option
@click.option("--images", type=ImagesFolder(), required=True, help="The folder of images to send.")
@click.option("--collection", help="The collection to search; default: the only one.")
@click.option(
    "-k", type=click.IntRange(1, 100), default=10, show_default=True, help="Results per query."
)
@click.option(
    "--concurrency",
    callback=_counts,
    metavar="N,...",
    help="Closed loop: the number of clients, each of which waits for its answer; one run for each "
    "number. Default: 1,8,32.",
)
@click.option(
    "--rate",
    "rates",
    callback=_rates,
    metavar="R,...",
    help="Open loop: requests per second, sent at fixed times; one run for each rate.",
)
@click.option(
    "--find-capacity",
    is_flag=True,
    help="Find the highest rate that meets --p99, and recommend settings for it.",
)
@click.option(
    "--p99",
    "p99_seconds",
    type=_SECONDS,
    default=0.5,
    show_default=True,
    help="With --find-capacity: the maximum 99th percentile of the latency, in seconds.",
)
@click.option(
    "--target-rate",
    type=_SECONDS,
    help="With --find-capacity: the images per second that you need, to recommend replicas.",
)
@click.option(
    "--headroom",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.3,
    show_default=True,
    help="With --target-rate: the share of an embedder's capacity that stays free.",
)
@click.option(
    "--embedders",
    type=click.IntRange(1),
    help="With --find-capacity: the number of embedders; default: those seen by --metrics.",
)
@click.option(
    "--seconds", type=_SECONDS, default=10, show_default=True, help="The measured time of a run."
)
@click.option(
    "--warmup-seconds",
    type=click.FloatRange(0),
    default=2,
    show_default=True,
    help="The time before each run that is not measured.",
)
@click.option(
    "--timeout-seconds",
    type=_SECONDS,
    default=10,
    show_default=True,
    help="How long a client waits for an answer.",
)
@click.option(
    "--max-connections",
    type=click.IntRange(1),
    default=1024,
    show_default=True,
    help="With a rate: the maximum of connections. A request that waits for a free one has a "
    "higher latency.",
)
@click.option(
    "--max-images",
    "max_images",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="The maximum number of images that are read and sent in turn.",
)
@click.option(
    "--repeat-images",
    is_flag=True,
    help="Send the same bytes repeatedly; by default each body differs, so that no cache helps.",
)
@click.option(
    "--impatient",
    is_flag=True,
    help="Refused clients retry at once, without waiting for Retry-After.",
)
@click.option(
    "--metrics",
    multiple=True,
    metavar="URL",
    help="The admin address of a service, to measure CPU and batches; may be repeated.",
)
@click.option(
    "--header",
    "headers",
    callback=_headers,
    multiple=True,
    metavar="NAME:VALUE",
    help="A header of every request; may be repeated.",
)
@click.option(
    "--json",
    "json_file",
    type=_OUT,
    help="Write all results to this file; - prints them instead of the tables.",
)
@click.option(
    "--report", "report_file", type=_OUT, help="Write an HTML page with charts to this file."
)
@click.pass_context
@lifecycle.exit_on_error
def bench(context: click.Context, /, **options: Any) -> None:  # noqa: ANN401 (one value for each option)
    """Put load on a running Simile, and measure its throughput and latency.

    Your images are read before the start, and sent in a shuffled order that is always the same. Run
    the command on another machine than Simile where you can.
    """
    _check(context, options)
    try:
        from services.bench import session
        from services.bench.load.meter import Plan
        from services.bench.sizing import SizingGoal
    except ImportError as error:
        message = f"simile bench needs {error.name}: pip install 'simile-search[bench]'"
        raise MissingExtra(message) from error

    plan = Plan(
        seconds=options.pop("seconds"),
        warmup_seconds=options.pop("warmup_seconds"),
        timeout_seconds=options.pop("timeout_seconds"),
        patient=not options.pop("impatient"),
        max_connections=options.pop("max_connections"),
        metrics=options.pop("metrics"),
    )
    goal = SizingGoal(
        p99_seconds=options.pop("p99_seconds"),
        rate=options.pop("target_rate"),
        headroom=options.pop("headroom"),
    )
    chosen = session.BenchOptions(
        plan=plan,
        goal=goal if options.pop("find_capacity") else None,
        unique=not options.pop("repeat_images"),
        headers=options.pop("headers"),
        concurrency=options.pop("concurrency"),
        rates=options.pop("rates"),
        **options,
    )
    session.run(chosen, console(), console(stderr=True))


def _check(context: click.Context, options: dict[str, Any]) -> None:
    """Refuse contradicting options, and set the default load."""
    loads = [name for name in ("concurrency", "rates", "find_capacity") if options[name]]
    if len(loads) > 1:
        message = "give one of --concurrency, --rate and --find-capacity"
        raise click.UsageError(message)
    require_with(context, "find_capacity", "p99_seconds", "target_rate", "embedders")
    require_with(context, "target_rate", "headroom")
    if is_given(context, "max_connections") and not (options["rates"] or options["find_capacity"]):
        message = "--max-connections has no effect without --rate or --find-capacity: add one"
        raise click.UsageError(message)
    if not loads:
        options["concurrency"] = _DEFAULT_CONCURRENCY

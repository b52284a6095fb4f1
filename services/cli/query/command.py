"""The command `simile query`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from services.cli.options import examples, url_option
from services.cli.query.images import find_images, is_single, require_sources, vector_query
from services.cli.query.output import QueryOutput
from services.cli.query.parameters import given_parameters, require_route, search_options
from services.cli.query.wording import for_command_line
from services.clients.api import QueryImage
from services.clients.batches import BatchSearch, Patience, until_admitted
from services.shared import lifecycle
from services.shared.contracts.parameters import Route
from services.shared.errors import SimileError

if TYPE_CHECKING:
    from services.searcher.progress import Progress


@click.command(
    epilog=examples(
        "simile query cat.jpg",
        "simile query cat.jpg -k 5 --collection pets --max-distance 0.8",
        """simile query cat.jpg --filter '{"label": ["cat", "dog"]}' --attributes""",
        "simile query cat.jpg --box 0.25,0.25,0.5,0.5",
        "simile query photos --json > answers.jsonl",
        "curl --location https://example.org/cat.jpg | simile query -",
        "simile query --vector vector.json",
        "simile query https://example.org/cat.jpg --url http://simile.example.org",
    )
)
@click.argument(
    "sources",
    type=click.Path(),
    nargs=-1,
    metavar="IMAGE...",
    callback=require_sources,
)
@url_option
@search_options
@click.option(
    "--pages",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="The number of pages to fetch, for a single image.",
)
@click.option("--attributes", is_flag=True, help="Show the attributes of each result.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print an object for each image and page, one per line.",
)
@lifecycle.exit_on_error
def query(
    *,
    sources: tuple[str, ...],
    vector: Path | None,
    url: str,
    pages: int,
    attributes: bool,
    as_json: bool,
    **values: object,
) -> None:
    """Search a running Simile by images, or by a vector.

    An IMAGE is a file, a folder, an http or https URL, or - for standard input. A folder stands for
    all images in it and below it. Simile itself fetches a URL, where its operator allows that. Many
    images are sent in batches; where Simile is full, the command waits as long as it asks for.
    """
    if (vector is None) == (not sources):
        message = "give an IMAGE or several, or --vector FILE"
        raise click.UsageError(message)
    parameters = given_parameters(values)
    output = QueryOutput(url, as_json, attributes)
    try:
        if vector is not None:
            asyncio.run(_search_one(vector_query(vector), parameters, pages, output))
        elif is_single(sources):
            (image,) = find_images(sources)
            asyncio.run(_search_one(image, parameters, pages, output))
        else:
            if pages > 1:
                message = "--pages goes with a single image"
                raise click.UsageError(message)
            require_route(parameters, Route.BATCH)
            asyncio.run(_search_all(sources, parameters, output))
    except SimileError as error:
        raise for_command_line(error, url) from error
    if output.failed:
        raise SystemExit(lifecycle.ExitCode.FAILED)


async def _search_one(
    image: QueryImage, parameters: Mapping[str, str], pages: int, output: QueryOutput
) -> None:
    from services.clients.calls import connected

    async with connected(output.url) as client:
        answers = until_admitted(lambda: client.search(image, parameters, pages=pages), Patience())
        output.pages(image.name, [answer async for answer in answers])


async def _search_all(
    sources: Sequence[str], parameters: Mapping[str, str], output: QueryOutput
) -> None:
    from services.clients.calls import connected

    with _progress(output) as progress:
        # Counted first, for the bar; standard input can be read once.
        images = list(find_images(sources))
        progress.begin("searching", len(images))
        async with connected(output.url) as client:
            search = BatchSearch(client, parameters, await client.limits())
            async for _, result in search.outcomes(images):
                output.result(result)
                progress.advance(failed="problem" in result)


@contextlib.contextmanager
def _progress(output: QueryOutput) -> Iterator[Progress]:
    """Show a bar on a terminal; lines of JSON on the same terminal are shown without one."""
    from services.searcher.progress import NoProgress, RichProgress

    if not sys.stderr.isatty() or (output.as_json and sys.stdout.isatty()):
        yield NoProgress()
        return
    with RichProgress() as bar:
        yield bar

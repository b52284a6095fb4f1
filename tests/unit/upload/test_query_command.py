"""`simile query` sends its options to a running upload, and prints the answer."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from services.shared.contracts import Box, Filter
from tests.support.pictures import plain_jpeg
from tests.unit.upload.conftest import COUNT, Api


@dataclass(frozen=True, slots=True)
class Ended:
    """Holds the exit code and the output of a command."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Return the paths of two images and of a text file."""
    contents = [plain_jpeg((9, 9, 9)), plain_jpeg((200, 9, 9)), b"this is text"]
    paths = [tmp_path / f"query-{number}.jpg" for number in range(3)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return [str(path) for path in paths]


async def _simile(*arguments: str) -> Ended:
    """Run the command as a process, since the service logs in this one."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services", *arguments,
        stdout=PIPE, stderr=PIPE, env={**os.environ, "COLUMNS": "120"},
    )  # fmt: skip
    stdout, stderr = await child.communicate()
    return Ended(await child.wait(), stdout.decode(), stderr.decode())


async def _query(api: Api, *arguments: str) -> Ended:
    return await _simile("query", "--url", api.url, *arguments)


async def test_every_option_reaches_the_searcher(api: Api, files: list[str]) -> None:
    """The searcher receives the values of the command line."""
    result = await _query(
        api, files[0], "-k", "3", "--filter", '{"label": "crow"}', "--box", "0,0,0.5,1",
        "--max-distance", "0.5", "--collapse", "0.25", "--collection", "birds",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    question = api.searcher.asked
    assert (question.k, question.max_distance, question.collapse) == (3, 0.5, 0.25)
    assert (question.filter, question.collection) == (Filter(("crow",)), "birds")
    assert api.searcher.slips[-1].box == Box(0, 0, 0.5, 1)


async def test_the_table_says_what_is_folded_and_what_is_left(api: Api, files: list[str]) -> None:
    """Each neighbour shows its near-duplicates, and the last line shows the number of matches."""
    result = await _query(api, files[0], "-k", "3", "--collapse", "0.1")
    assert result.stdout.count("+1 near-duplicate") == 3
    assert "image odd" in result.stdout
    assert f"3 of {COUNT}" in result.stdout
    everything = await _query(api, files[0], "-k", "50")
    assert "near-duplicate" not in everything.stdout
    assert f"of {COUNT}" not in everything.stdout


async def test_pages_continue_where_the_one_before_ended(api: Api, files: list[str]) -> None:
    """The table continues over pages; more pages than exist give all items."""
    result = await _query(api, files[0], "-k", "5", "--pages", "2")
    assert f"10 of {COUNT}" in result.stdout
    assert all(item.item_id in result.stdout for item in api.items[:10])
    pages = json.loads((await _query(api, files[0], "-k", "5", "--pages", "9", "--json")).stdout)
    assert [len(page["neighbors"]) for page in pages] == [5, 5, 2]


async def test_one_page_as_json_is_the_answer_unchanged(api: Api, files: list[str]) -> None:
    """--json shows the body of the answer."""
    answer = json.loads((await _query(api, files[0], "-k", "1", "--json")).stdout)
    assert answer["matching"] == COUNT
    assert len(answer["neighbors"]) == 1


async def test_several_files_are_one_batch(api: Api, files: list[str]) -> None:
    """Each image has a table; a failed image shows its code, and sets the exit code."""
    good = await _query(api, *files[:2], "-k", "2")
    assert good.exit_code == 0
    assert all(Path(file).name in good.stdout for file in files[:2])
    result = await _query(api, *files, "-k", "2")
    assert result.exit_code == 1
    assert "(unsupported_format)" in result.stderr
    assert api.items[0].item_id in result.stdout
    printed = json.loads((await _query(api, *files, "--json")).stdout)
    assert [set(result) for result in printed["results"]] == [
        {"name", "answer"}, {"name", "answer"}, {"name", "problem"},
    ]  # fmt: skip


async def test_pages_take_one_file(api: Api, files: list[str]) -> None:
    """Only a single search has pages."""
    result = await _query(api, *files[:2], "--pages", "2")
    assert result.exit_code == 2
    assert "--pages takes one FILE" in result.stderr


async def test_a_refusal_is_one_line(api: Api, files: list[str]) -> None:
    """A refusal of the API is printed with its code, and no traceback."""
    result = await _query(api, files[0], "--filter", "crow")
    assert result.exit_code == 1
    assert result.stderr.startswith("simile: filter is not a JSON object")
    assert result.stderr.endswith("(malformed_request)\n")


async def test_an_unreachable_server_is_an_error(files: list[str]) -> None:
    """An address without a listener ends the command with a named error."""
    result = await _simile("query", "--url", "http://127.0.0.1:9", files[0])
    assert result.exit_code == 1
    assert "unreachable" in result.stderr


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, "[]"), (200, "{}"), (500, '{"error": "x"}'), (404, "<html>"), (200, "null")],
)
async def test_another_server_is_no_simile(files: list[str], status: int, body: str) -> None:
    """Any answer of another server, with any status, is reported in one line."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=status, text=body)

    other = web.Application()
    other.router.add_post("/v1/search", answer)
    async with TestServer(other) as server:
        result = await _simile("query", "--url", str(server.make_url("/")), files[0])
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.endswith("(unreachable)")

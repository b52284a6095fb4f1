"""`simile query` against a running upload service: what it asks for, and what it prints."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import TestServer
from click.testing import CliRunner, Result

from services.cli.main import main
from services.cli.query.output import result_table
from services.cli.query.parameters import IMAGE_URL, option_name, option_parameters
from services.shared.contracts import Box, Filter
from services.shared.contracts.parameters import Parameter, Route, of_route
from services.upload.settings import UploadSettings
from tests.support.pictures import plain_jpeg
from tests.support.volume import items, publish_version, unit_vectors
from tests.unit.upload.conftest import COUNT, Api


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Return the paths of two images and of a text file."""
    contents = [plain_jpeg((9, 9, 9)), plain_jpeg((200, 9, 9)), b"this is text"]
    paths = [tmp_path / f"query-{number}.jpg" for number in range(3)]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return [str(path) for path in paths]


async def _simile(*arguments: str, stdin: bytes = b"") -> Result:
    """Run the command in a thread; the service in this process logs to nowhere meanwhile."""
    runner = CliRunner(env={"COLUMNS": "120", "TERM": "dumb"})
    with structlog.testing.capture_logs():
        return await asyncio.to_thread(runner.invoke, main, arguments, input=stdin)


async def _query(api: Api, *arguments: str, stdin: bytes = b"") -> Result:
    return await _simile("query", "--url", api.url, *arguments, stdin=stdin)


def _lines(result: Result) -> list[Any]:
    return [json.loads(line) for line in result.stdout.splitlines()]


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


def test_every_parameter_of_a_search_is_an_option() -> None:
    """Each has the range of the table; image_url is the argument, and nothing is left out."""
    options = {option.name: option for option in main.commands["query"].params}
    searches = {parameter.name for parameter in of_route(Route.SEARCH)}
    assert searches - {one.name for one in option_parameters()} == {IMAGE_URL}
    for parameter in option_parameters():
        option = options[parameter.name]
        assert option.opts == [option_name(parameter.name)]
        for bound, name in (("minimum", "min"), ("maximum", "max")):
            assert getattr(option.type, name, None) == parameter.schema.get(bound)


async def test_the_table_shows_what_is_folded_and_what_is_left(api: Api, files: list[str]) -> None:
    """Each neighbour has its near-duplicates; the last line shows that there is more."""
    result = await _query(api, files[0], "-k", "3", "--collapse", "0.1")
    assert "near-duplicates" in result.stdout
    assert "image odd" in result.stdout
    assert f"3 of {COUNT}" in result.stdout
    everything = await _query(api, files[0], "-k", "50")
    assert "near-duplicates" not in everything.stdout
    assert f"of {COUNT}" not in everything.stdout


async def test_the_table_names_the_file_of_each_neighbour(api: Api, files: list[str]) -> None:
    """Where the answer has no path, the item's id is shown; attributes on request."""
    result = await _query(api, files[0], "-k", "2")
    assert "image-1.jpg" in result.stdout
    assert "number: 1" not in result.stdout
    assert "number: 1" in (await _query(api, files[0], "-k", "2", "--attributes")).stdout
    api.searcher.sends_paths = False
    result = await _query(api, files[0], "-k", "2")
    assert "image-1.jpg" not in result.stdout
    assert api.items[1].item_id in result.stdout


@pytest.mark.parametrize("distant", [True, False])
def test_the_table_shows_that_no_result_is_close(*, distant: bool) -> None:
    """The caption has it beside the number of results, in an answer that says so."""
    neighbor = {"similarity": 0.3, "label": "cat", "item_id": "1", "duplicates": []}
    answer = {
        "neighbors": [neighbor], "next_cursor": "x", "matching": 9, "no_close_match": distant,
    }  # fmt: skip
    caption = result_table([answer], None, attributes=False).caption
    assert caption == ("1 of 9, no close match" if distant else "1 of 9")


async def test_pages_go_on_where_the_one_before_ended(api: Api, files: list[str]) -> None:
    """The table counts on; more pages than there are give all there are."""
    result = await _query(api, files[0], "-k", "5", "--pages", "2")
    assert f"10 of {COUNT}" in result.stdout
    assert all(item.path in result.stdout for item in api.items[:10])
    pages = _lines(await _query(api, files[0], "-k", "5", "--pages", "9", "--json"))
    assert [len(page["answer"]["neighbors"]) for page in pages] == [5, 5, 2]
    cursor = pages[0]["answer"]["next_cursor"]
    (second,) = _lines(await _query(api, files[0], "-k", "5", "--cursor", cursor, "--json"))
    assert second["answer"]["neighbors"] == pages[1]["answer"]["neighbors"]


async def test_json_is_one_object_per_line(api: Api, files: list[str]) -> None:
    """Each has the image's name and the answer as it came, for one image and for several."""
    (line,) = _lines(await _query(api, files[0], "-k", "1", "--json"))
    assert line["name"] == files[0]
    assert line["answer"]["matching"] == COUNT
    result = await _query(api, *files, "-k", "1", "--json")
    assert [(line["name"], *(line.keys() - {"name"})) for line in _lines(result)] == [
        (files[0], "answer"), (files[1], "answer"), (files[2], "problem"),
    ]  # fmt: skip
    assert result.exit_code == 1


async def test_several_files_are_one_batch(api: Api, files: list[str]) -> None:
    """A table follows each image's name; a failed image has its code, and sets the exit code."""
    good = await _query(api, *files[:2], "-k", "2")
    assert good.exit_code == 0
    assert all(file in good.stdout.splitlines() for file in files[:2])
    result = await _query(api, *files, "-k", "2")
    assert result.exit_code == 1
    assert f"simile: {files[2]}: " in result.stderr
    assert "(unsupported_format)" in result.stderr
    assert "image-1.jpg" in result.stdout


async def test_a_folder_stands_for_all_images_below_it(api: Api, tmp_path: Path) -> None:
    """More than a batch holds, in sub-folders too; hidden and other files are left out."""
    folder = tmp_path / "photos"
    (folder / "sub" / ".cache").mkdir(parents=True)
    for number in range(18):
        place = folder if number % 2 else folder / "sub"
        (place / f"{number:02}.jpg").write_bytes(plain_jpeg((9, number, 9), (40, 30)))
    for other in ("notes.txt", ".hidden.jpg", "sub/.cache/x.jpg"):
        (folder / other).write_bytes(b"no image")
    result = await _query(api, str(folder), "-k", "1", "--json")
    assert result.exit_code == 0, result.stderr
    names = [Path(line["name"]) for line in _lines(result)]
    assert sorted(path.name for path in names) == [f"{number:02}.jpg" for number in range(18)]
    assert len(api.searcher.slips) == 18


async def test_an_empty_folder_is_an_error(api: Api, tmp_path: Path) -> None:
    """The message says which files are searched for."""
    (tmp_path / "empty").mkdir()
    result = await _query(api, str(tmp_path / "empty"))
    assert result.exit_code == 1
    assert "holds no image" in result.stderr


async def test_an_image_comes_from_standard_input(api: Api) -> None:
    """The name - reads it, alone or among files; without bytes that is an error."""
    result = await _query(api, "-", "--json", stdin=plain_jpeg((1, 2, 3)))
    assert [line["name"] for line in _lines(result)] == ["-"]
    nothing = await _query(api, "-")
    assert nothing.exit_code == 1
    assert "no bytes" in nothing.stderr


async def test_a_vector_is_searched_by(api: Api, tmp_path: Path) -> None:
    """A vector comes from a JSON file or from standard input; with an image it is refused."""
    text = json.dumps(unit_vectors(1)[0].tolist())
    file = tmp_path / "vector.json"
    file.write_text(text)
    for source, stdin in ((str(file), ""), ("-", text)):
        result = await _query(api, "--vector", source, "-k", "3", "--json", stdin=stdin.encode())
        (line,) = _lines(result)
        assert len(line["answer"]["neighbors"]) == 3
    file.write_text("no list")
    assert "no JSON list" in (await _query(api, "--vector", str(file))).stderr
    assert "give an IMAGE" in (await _query(api, "--vector", str(file), str(file))).stderr
    assert "give an IMAGE" in (await _query(api)).stderr


async def test_an_address_that_simile_does_not_fetch_is_explained(api: Api) -> None:
    """The error says how to send the image itself, alone and among several."""
    address = "http://127.0.0.1:9/cat.jpg"
    for sources in ([address], [address, address]):
        result = await _query(api, *sources)
        assert result.exit_code == 1
        assert "simile query -" in result.stderr
        assert "image_url" not in result.stderr
        assert "(url_not_allowed)" in result.stderr


class TestFetched:
    """A service that fetches images from a server of the test."""

    @pytest.fixture
    def upload_settings(self, unused_tcp_port: int) -> UploadSettings:
        """Allow the address of the server."""
        return UploadSettings(
            port=0, query_by_url=True, url_allowed_hosts=f"127.0.0.1:{unused_tcp_port}"
        )

    async def test_a_url_is_fetched_by_simile(self, api: Api, unused_tcp_port: int) -> None:
        """The address is sent as image_url; in a batch it keeps its place."""

        async def image(_: web.Request) -> web.Response:
            return web.Response(body=plain_jpeg((9, 9, 9)))

        server = web.Application()
        server.router.add_get("/cat.jpg", image)
        address = f"http://127.0.0.1:{unused_tcp_port}/cat.jpg"
        async with TestServer(server, port=unused_tcp_port):
            (line,) = _lines(await _query(api, address, "--json"))
            assert line["name"] == address
            several = _lines(await _query(api, address, "-", "--json", stdin=plain_jpeg((1, 2, 3))))
        assert [one["name"] for one in several] == [address, "-"]
        assert all("answer" in one for one in several)


@pytest.mark.parametrize("option", ["--pages", "--cursor"])
async def test_what_a_batch_does_not_have_is_refused(
    api: Api, files: list[str], option: str
) -> None:
    """Only a search by one image has pages."""
    result = await _query(api, *files[:2], option, "2")
    assert result.exit_code == 2
    assert f"{option} goes with a single image" in result.stderr


_WRONG = {
    "vector": "wrong.json",
    "collection": "No [b]Good[/b]",
    "filter": "crow",
    "box": "1,2,3",
    "cursor": "not a cursor",
}


@pytest.mark.parametrize(
    "parameter",
    option_parameters(),
    ids=lambda one: one.name,
)
async def test_an_error_names_the_option(
    api: Api,
    files: list[str],
    parameter: Parameter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wrong values of every parameter: one line in the words of the command line."""
    option = option_name(parameter.name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.json").write_text("[1, 2]")
    images = [] if parameter.name == "vector" else [files[0]]
    result = await _query(api, *images, option, _WRONG.get(parameter.name, "1000"))
    assert result.exit_code in {1, 2}
    last = result.stderr.splitlines()[-1]
    assert option in last or parameter.name == "collection"
    assert f"?{parameter.name}=" not in last


async def test_a_collection_is_asked_for_by_its_option(api: Api, files: list[str]) -> None:
    """With several collections the error names --collection, and the collections."""
    publish_version(api.volume, "fish", unit_vectors(COUNT), items(COUNT))
    result = await _query(api, files[0])
    assert result.exit_code == 1
    assert "--collection" in result.stderr
    assert "?collection=" not in result.stderr
    assert "birds, fish" in result.stderr
    unknown = await _query(api, files[0], "--collection", "moths")
    assert f"{api.url}/v1/collections" in unknown.stderr
    assert "GET /" not in unknown.stderr


async def test_a_warning_is_printed_once(api: Api, files: list[str]) -> None:
    """A filter value that no item has is pointed out, however many images are searched by."""
    label = '{"label": ["image odd", "crow"]}'
    result = await _query(api, *files[:2], "--filter", label)
    assert result.stderr.count("simile: warning: ") == 1
    assert "crow" in result.stderr


async def test_the_address_comes_from_the_environment(
    api: Api, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIMILE_URL is the default of --url, and is checked like it."""
    monkeypatch.setenv("SIMILE_URL", api.url)
    assert (await _simile("query", files[0])).exit_code == 0
    monkeypatch.setenv("SIMILE_URL", "localhost:8080")
    result = await _simile("query", files[0])
    assert result.exit_code == 2
    assert "begins with http://" in result.stderr


async def test_a_refusal_is_one_line(api: Api, files: list[str]) -> None:
    """A refusal of the API is printed with its code, and no traceback."""
    result = await _query(api, files[0], "--filter", "crow")
    assert result.exit_code == 1
    assert result.stderr.startswith("simile: --filter is not a JSON object")
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

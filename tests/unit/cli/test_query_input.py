"""Sources and options of `simile query` that can't be sent end in one line of error."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from services.cli.main import main
from services.clients.api import MAX_FILE_BYTES, QueryImage
from services.clients.calls import Client
from services.shared.errors import Unreachable
from simile_client import AsyncSimile
from tests.support.pictures import plain_jpeg

NOWHERE = "http://127.0.0.1:9"
SURROGATE = "\udcff"
"""Python's letter for the byte ff of an argument."""


@pytest.fixture
def image(tmp_path: Path) -> str:
    """Return the path of an image."""
    path = tmp_path / "query.jpg"
    path.write_bytes(plain_jpeg((9, 9, 9)))
    return str(path)


def _query(*arguments: str, stdin: io.BytesIO | None = None) -> Result:
    return CliRunner(env={"TERM": "dumb", "COLUMNS": "200"}).invoke(
        main, ["query", *arguments], input=stdin
    )


def _is_refused(result: Result, reason: str, exit_code: int) -> None:
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == exit_code
    assert reason in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--url", "http://localhost:99999"], "is no URL"),
        (["--url", "http://localhost:0"], "is no URL"),
        (["--url", "http://[::"], "is no URL"),
        (["--url", "http://"], "is no URL"),
        (["--cursor", SURROGATE], "--cursor is not UTF-8"),
        (["--filter", f'{{"label": "{SURROGATE}"}}'], "--filter is not UTF-8"),
        ([f"http://example.org/{SURROGATE}"], "not UTF-8"),
    ],
)
def test_an_option_that_cannot_be_sent_is_refused(
    options: Sequence[str], reason: str, image: str
) -> None:
    """The command line is at fault, and the last line names the option."""
    _is_refused(_query(image, *options), reason, 2)


@pytest.mark.parametrize("text", ["[NaN]", "[1e999]", "[[NaN]]", '["\\ud800"]', "[true]", "{}"])
def test_a_vector_has_finite_numbers(text: str, tmp_path: Path) -> None:
    """Other values are refused before they are sent."""
    file = tmp_path / "vector.json"
    file.write_text(text)
    _is_refused(_query("--vector", str(file), "--url", NOWHERE), "file_unusable", 1)


def test_a_vector_is_read_within_a_bound(tmp_path: Path) -> None:
    """A larger file is read no further, not even one that never ends; nor is standard input."""
    large = tmp_path / "large.json"
    large.write_text(json.dumps([0]) + " " * 2**22)
    for source in (str(large), "/dev/zero"):
        _is_refused(_query("--vector", source, "--url", NOWHERE), "file_unusable", 1)
    endless = _Endless()
    _is_refused(_query("--vector", "-", "--url", NOWHERE, stdin=endless), "file_unusable", 1)
    assert endless.count < 2**23


def test_standard_input_is_read_up_to_the_limit_of_images() -> None:
    """The command ends although the input does not."""
    endless = _Endless()
    _is_refused(_query("-", "--url", NOWHERE, stdin=endless), "file_unusable", 1)
    assert endless.count <= MAX_FILE_BYTES + 2**20


def test_only_files_folders_and_pipes_are_images(tmp_path: Path) -> None:
    """Devices and sockets are refused by name, as are paths that can't be looked up."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for source in ("/dev/zero", str(tmp_path / "socket")):
            _is_refused(_query(source), "is a device or a socket", 2)
    for source in ("x" * 5000, "~nobody-has-this-name/x"):
        _is_refused(_query(source), "can't be used", 2)


async def test_a_cursor_that_returns_ends_the_pages() -> None:
    """A server that repeats its cursor is reported."""

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"neighbors": [], "next_cursor": "same"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        client = Client(AsyncSimile(http=http), NOWHERE)
        pages: AsyncIterator[object] = client.search(QueryImage("-", content=b"x"), {}, pages=9)
        with pytest.raises(Unreachable, match="cursor"):
            [page async for page in pages]


class _Endless(io.BytesIO):
    """A stream without an end that counts the bytes read."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Return that many zeros."""
        assert size is not None
        assert size >= 0
        self.count += size
        return bytes(size)

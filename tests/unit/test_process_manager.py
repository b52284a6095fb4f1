"""Tests of how `simile up --processes` gives its children ports and writes their output."""

from __future__ import annotations

import asyncio
import itertools
import socket

import pytest

from services.local.process_manager import admin_ports, pass_on
from tests.support.running import free_port


def test_admin_ports_follow_that_of_upload_and_leave_out_taken_ones() -> None:
    """A child's admin port is the same at each start, unless another process took it."""
    first = free_port()
    with socket.create_server(("127.0.0.1", first + 1)):
        found = list(itertools.islice(admin_ports("127.0.0.1", first), 3))
    assert found[0] == first
    assert first + 1 not in found
    assert found == sorted(found)


def test_ports_above_the_last_one_are_any_free_ones() -> None:
    """The highest port as upload's leaves other free ports to its siblings."""
    first, *others = itertools.islice(admin_ports("127.0.0.1", 65_535), 3)
    assert first == 65_535
    assert all(0 < port < 65_535 for port in others)


async def test_the_output_of_two_children_is_written_by_whole_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A line that arrives in parts is not cut by a line of another child."""
    one, two = asyncio.StreamReader(), asyncio.StreamReader()
    passing = [asyncio.create_task(pass_on(output)) for output in (one, two)]
    for half in (b'{"a": "first ', b'half"}\n'):
        one.feed_data(half)
        two.feed_data(b'{"b": 1}\n')
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    two.feed_data(b"no newline at the end")
    for output in (one, two):
        output.feed_eof()
    await asyncio.gather(*passing)
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines) == sorted(
        ['{"a": "first half"}', '{"b": 1}', '{"b": 1}', "no newline at the end"]
    )


async def test_a_line_without_end_takes_bounded_memory(capsys: pytest.CaptureFixture[str]) -> None:
    """Output without a newline is written in pieces of about a mebibyte."""
    output = asyncio.StreamReader()
    output.feed_data(b"x" * 3_000_000)
    passing = asyncio.create_task(pass_on(output))
    while capsys.readouterr().out == "":
        await asyncio.sleep(0)
    output.feed_eof()
    await passing

"""HTTP servers listen on IPv4, IPv6 or both, and report why they can't."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from services.shared.errors import InvalidSettings
from services.shared.lifecycle import ExitCode, exit_code, supervise
from services.shared.listening import UPLOAD_PORT, base_url, free_port, is_free, open_site
from services.shared.telemetry.health import Health, start_admin

IPV4 = "0.0.0.0"  # noqa: S104 (the test needs every address)


@pytest.fixture
async def runner() -> AsyncIterator[web.AppRunner]:
    """Set up a server that answers 404 and does not listen yet."""
    runner = web.AppRunner(web.Application())
    await runner.setup()
    yield runner
    await runner.cleanup()


async def _status(url: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "::", IPV4, ""])
async def test_the_printed_url_reaches_the_server(runner: web.AppRunner, host: str) -> None:
    """This machine reaches any host setting by the URL that is printed."""
    await open_site(runner, host, 0, UPLOAD_PORT)
    assert await _status(base_url("http", host, runner.addresses[0][1])) == 404


async def test_every_address_is_ipv4_too(runner: web.AppRunner) -> None:
    """`::` answers on both families, at one port."""
    await open_site(runner, "::", 0, UPLOAD_PORT)
    port = runner.addresses[0][1]
    for url in (f"http://127.0.0.1:{port}", f"http://[::1]:{port}"):
        assert await _status(url) == 404


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("::1", "http://[::1]:80"),
        ("fe80::1", "http://[fe80::1]:80"),
        ("photos.example", "http://photos.example:80"),
        (IPV4, "http://127.0.0.1:80"),
    ],
)
def test_an_ipv6_address_is_in_brackets(host: str, url: str) -> None:
    """Bare colons in a URL would be read as another port."""
    assert base_url("http", host, 80) == url


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::"])
async def test_a_taken_port_is_named_with_its_setting(runner: web.AppRunner, host: str) -> None:
    """The error names the port, the setting and the option in a single line."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as taken:
        port = taken.getsockname()[1]
        assert not is_free(host, port)
        with pytest.raises(InvalidSettings) as seen:
            await open_site(runner, host, port, UPLOAD_PORT)
        with pytest.raises(InvalidSettings, match=f"{port} is taken.*--admin-port"):
            await start_admin(Health(), CollectorRegistry(), host, port)
    for part in (str(port), "SIMILE_UPLOAD_PORT", "--port"):
        assert part in str(seen.value)
    assert "\n" not in str(seen.value)


@pytest.mark.parametrize("host", ["203.0.113.7", "2001:db8::7", "no-such-host.invalid"])
async def test_an_address_of_another_machine_is_named(runner: web.AppRunner, host: str) -> None:
    """The error names the setting, the value and the reason."""
    with pytest.raises(InvalidSettings, match=f"SIMILE_UPLOAD_HOST is '{host}'"):
        await open_site(runner, host, 0, UPLOAD_PORT)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::"])
def test_a_free_port_is_free(host: str) -> None:
    """A free port is reported as free on either family."""
    assert is_free(host, free_port(host))


async def test_a_stage_that_can_not_listen_ends_with_the_code_of_a_wrong_setting() -> None:
    """The process names the setting, and ends with exit code 78 and without a traceback."""

    async def stage() -> None:
        message = "port 80 is taken"
        raise InvalidSettings(message)

    with pytest.raises(InvalidSettings, match="port 80 is taken") as seen:
        await supervise({"http": stage()}, until=asyncio.Event())
    assert exit_code(seen.value) == ExitCode.INVALID_SETTINGS

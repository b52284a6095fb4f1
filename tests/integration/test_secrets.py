"""Tests that secrets stay out of logs at every level, tracebacks, reprs, and answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from services.clients.api import ClientSettings, key_headers
from services.shared.errors import BrokerUnavailable
from services.shared.messaging.rabbitmq.broker import AmqpBroker
from services.shared.settings import SharedSettings, load
from services.shared.telemetry import logs
from services.upload.security.api_keys import Scope, new_key
from services.upload.settings import UploadSettings
from tests.support.rabbitmq import Node
from tests.support.running import free_port, start, wait_until

PASSWORD = "hunter2-hunter2"
KEY, KNOWN = new_key("shop", [Scope.READ])


class Written:
    """Collects everything written so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def getvalue(self) -> str:
        """Return the text."""
        self._text += self._capsys.readouterr().out
        return self._text


@pytest.fixture(params=["json", "pretty"])
def written(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> Iterator[Written]:
    """Return everything that the process logs, of every library, from debug up."""
    handlers, level = logging.root.handlers[:], logging.root.level
    logs.configure("debug", request.param)
    try:
        yield Written(capsys)
    finally:
        structlog.reset_defaults()
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)


async def test_a_broker_that_is_away_shows_no_password(written: Written) -> None:
    """The log of the attempts and the error don't contain the password."""
    url = f"amqp://user:{PASSWORD}@127.0.0.1:{free_port()}/"
    broker = AmqpBroker(url, name="test", start_timeout_seconds=0.5)
    with pytest.raises(BrokerUnavailable) as seen:
        await broker.start([])
    structlog.get_logger().error("as seen", exc_info=seen.value)
    await broker.close()
    assert "broker_away" in written.getvalue()
    assert PASSWORD not in written.getvalue() + repr(seen.value) + repr(broker)


async def test_a_broker_that_refuses_shows_no_password(rabbitmq: Node, written: Written) -> None:
    """A wrong password is refused with the setting's name; a right one is not logged either."""
    wrong = rabbitmq.url.replace("guest:guest", f"guest:{PASSWORD}")
    broker = AmqpBroker(wrong, name="test", start_timeout_seconds=30)
    with pytest.raises(BrokerUnavailable, match="SIMILE_AMQP_URL") as seen:
        await broker.start([])
    await broker.close()
    await asyncio.to_thread(rabbitmq.ctl, "add_user", "secretive", PASSWORD)
    await asyncio.to_thread(rabbitmq.ctl, "set_permissions", "secretive", ".*", ".*", ".*")
    right = rabbitmq.url.replace("guest:guest", f"secretive:{PASSWORD}")
    broker = AmqpBroker(right, name="test", start_timeout_seconds=30)
    await broker.start([])
    await broker.close()
    await asyncio.to_thread(rabbitmq.ctl, "delete_user", "secretive")
    assert "broker_connected" in written.getvalue()
    assert PASSWORD not in written.getvalue() + str(seen.value)


def test_a_traceback_shows_no_locals(written: Written) -> None:
    """Tracebacks show lines of code without local values, which may hold a key."""

    def fails(key: str) -> None:
        message = "it failed"
        raise RuntimeError(message, len(key))

    try:
        fails(KEY)
    except RuntimeError:
        structlog.get_logger().exception("failed", action="internal")
        logging.getLogger("aiohttp.server").exception("failed")
    assert "RuntimeError" in written.getvalue()
    assert KEY not in written.getvalue()


def test_settings_show_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets are hidden in text and dumps; only the request header has the key."""
    monkeypatch.setenv("SIMILE_API_KEY", KEY)
    monkeypatch.setenv("SIMILE_AMQP_URL", f"amqp://user:{PASSWORD}@host/")
    shown = "".join(
        repr(one) + str(one) + str(one.model_dump()) + one.model_dump_json()
        for one in (load(ClientSettings), load(SharedSettings), load(UploadSettings))
    )
    assert KEY not in shown
    assert PASSWORD not in shown
    assert key_headers() == {"Authorization": f"Bearer {KEY}"}


def test_a_process_writes_no_secret(tmp_path: Path) -> None:
    """`simile upload` at debug level with keys, without RabbitMQ, logs no key of a request."""
    file, log = tmp_path / "keys", tmp_path / "log"
    file.write_text(KNOWN.line)
    process = start(
        "upload",
        ["-m", "services", "upload"],
        log,
        {
            "SIMILE_AMQP_URL": f"amqp://user:{PASSWORD}@127.0.0.1:{free_port()}/",
            "SIMILE_UPLOAD_API_KEYS_FILE": str(file),
            "SIMILE_API_KEY": KEY,
            "SIMILE_LOG_LEVEL": "debug",
        },
    )
    try:
        wait_until(lambda: "broker_away" in log.read_text(), "broker_away in the log", process)
    finally:
        process.stop()
    assert PASSWORD not in log.read_text()
    assert KEY not in log.read_text()
    assert KNOWN.digest.hex() not in log.read_text()

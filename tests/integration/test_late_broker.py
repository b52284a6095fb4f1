"""Tests services whose RabbitMQ starts late, goes away, and comes back."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.shared.lifecycle import ExitCode
from services.shared.messaging.rabbitmq.broker import AmqpBroker
from services.shared.volume.volume import Volume
from tests.support.pictures import plain_jpeg
from tests.support.rabbitmq import Node, require_server
from tests.support.running import Process, free_port, start, wait_until
from tests.support.volume import items, publish_version, unit_vectors

COUNT = 9
COLLECTION = "birds"
SIMILAR = f"/v1/items/{COLLECTION}/{items(COUNT)[0].item_id}/similar"
PATIENCE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; code: of a problem document."""

    status: int
    code: str
    retry_after: str | None


def _ask(url: str, body: bytes | None = None) -> Answer:
    try:
        with urllib.request.urlopen(url, data=body, timeout=PATIENCE_SECONDS) as answer:
            return Answer(answer.status, "ok", None)
    except urllib.error.HTTPError as error:
        return Answer(error.code, json.load(error)["code"], error.headers["Retry-After"])


def _failing(process: Process, path: str) -> Any:
    try:
        with urllib.request.urlopen(f"{process.admin}{path}", timeout=PATIENCE_SECONDS) as answer:
            return json.load(answer)["failing"]
    except urllib.error.HTTPError as error:
        return json.load(error)["failing"]
    except urllib.error.URLError:
        return None


@dataclass(frozen=True, slots=True)
class System:
    """Runs upload and a searcher with an index, no embedder, and a node to be started later."""

    node: Node
    url: str
    upload: Process
    searcher: Process

    @property
    def processes(self) -> tuple[Process, ...]:
        """Both processes."""
        return self.upload, self.searcher

    def until_answered(self, path: str, code: str, body: bytes | None = None) -> Answer:
        """Send requests until the answer has that code."""
        wait_until(lambda: _ask(f"{self.url}{path}", body).code == code, code, self.upload)
        return _ask(f"{self.url}{path}", body)


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    """Yield the system, started before its broker."""
    require_server()
    folder = tmp_path / "node"
    folder.mkdir()
    node, port = Node(folder), free_port()
    publish_version(Volume(tmp_path / "root"), COLLECTION, unit_vectors(COUNT), items(COUNT))
    environment = {
        "SIMILE_AMQP_URL": node.url,
        "SIMILE_ROOT": str(tmp_path / "root"),
        "SIMILE_UPLOAD_PORT": str(port),
        "SIMILE_CANARY_SECONDS": "0",
    }
    upload, searcher = (
        start(service, ["-m", f"services.{service}"], tmp_path / f"{service}.log", environment)
        for service in ("upload", "searcher")
    )
    try:
        yield System(node, f"http://127.0.0.1:{port}", upload, searcher)
    finally:
        upload.kill()
        searcher.kill()
        node.close()


def test_services_wait_for_their_broker_and_survive_its_loss(system: System) -> None:
    """Services are live but unready until the broker starts; after its loss upload stays ready."""
    for process in system.processes:
        wait_until(lambda p=process: "broker_away" in p.log.read_text(), "waiting", process)  # type: ignore[misc]
        assert _failing(process, "/livez") == {}
        assert _failing(process, "/readyz") == {"broker": "the broker is unavailable"}
    system.node.start()
    for process in system.processes:
        wait_until(process.ready, "ready", process)
    assert system.until_answered(SIMILAR, "ok").status == 200
    picture = plain_jpeg((90, 20, 20))
    nobody = system.until_answered("/v1/search", "no_embedder", picture)
    assert (nobody.status, nobody.retry_after) == (503, "5")

    system.node.stop()
    away = system.until_answered(SIMILAR, "broker_unavailable")
    assert (away.status, away.retry_after) == (503, "1")
    assert system.upload.ready()
    assert _ask(f"{system.url}/").status == 200
    wait_until(lambda: not system.searcher.ready(), "not ready", system.searcher)
    assert _failing(system.searcher, "/livez") == {}

    system.node.start()
    assert system.until_answered(SIMILAR, "ok").status == 200
    wait_until(system.searcher.ready, "ready again", system.searcher)
    assert [process.stop() for process in system.processes] == [ExitCode.DRAINED] * 2


@pytest.mark.parametrize(
    ("credentials", "vhost", "missing"),
    [
        ("late:secret", "", ["add_user", "late", "secret"]),
        ("guest:guest", "late", ["add_vhost", "late"]),
    ],
    ids=["a user", "a vhost"],
)
async def test_a_refused_declaration_is_retried_until_permitted(
    rabbitmq: Node, credentials: str, vhost: str, missing: list[str]
) -> None:
    """Refused permissions are retried and reported: RabbitMQ may be set up after the services."""
    url = f"amqp://{credentials}@127.0.0.1:{rabbitmq.port}/{vhost}"
    user, _, password = credentials.partition(":")
    broker = AmqpBroker(url, name="refused", start_timeout_seconds=None)
    starting = asyncio.create_task(broker.start([]))
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while broker.refusal is None:
                await asyncio.sleep(0.02)
            assert "check SIMILE_AMQP_URL" in broker.refusal
            assert f":{password}@" not in broker.refusal
            assert not starting.done()
            permission = ["set_permissions", "-p", vhost or "/", user, ".*", ".*", ".*"]
            for command in (missing, permission):
                await asyncio.to_thread(rabbitmq.ctl, *command)
            await starting
        assert broker.ready
        assert broker.refusal is None
    finally:
        starting.cancel()
        await broker.close()

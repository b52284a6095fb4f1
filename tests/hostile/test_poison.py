"""Tests an image that kills its embedder, on real processes and RabbitMQ."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner, Result

from services.cli.main import main
from services.shared.contracts import (
    Embeddings,
    EmbedRequest,
    Failure,
    Replies,
    Slip,
    codec,
)
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Message, Queue
from services.shared.messaging.rabbitmq.broker import AmqpBroker
from tests.support import pictures
from tests.support.fake_model import GREEN
from tests.support.poison_embedder import ANTIDOTE, POISON
from tests.support.rabbitmq import Node
from tests.support.running import Process, start, wait_until

GOOD: Final = 40
DEATHS: Final = 3
PATIENCE_SECONDS: Final = 120.0

IMAGE: Final = pictures.plain_jpeg(GREEN)
POISONED: Final = IMAGE + POISON


class Embedders:
    """Runs two embedders, and restarts each that dies, as Kubernetes would."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.environment = {
            "SIMILE_AMQP_URL": node.url,
            "SIMILE_LOG_FORMAT": "json",
            "SIMILE_EMBEDDER_QUARANTINE_IMAGES": "true",
        }
        self.folder = folder
        self.deaths = 0
        self.processes = [self._start(number) for number in range(2)]

    def _start(self, number: int) -> Process:
        environment = {**self.environment, "SIMILE_REPLICA": f"embedder-{number}"}
        log = self.folder / f"embedder-{number}.log"
        return start(
            f"embedder-{number}", ["-m", "tests.support.poison_embedder"], log, environment
        )

    def wait_ready(self) -> None:
        """Wait until both are ready."""
        for process in self.processes:
            wait_until(process.ready, "ready", process)

    async def restart_dead(self) -> None:
        """Restart dead embedders, and count the deaths."""
        while True:
            for number, process in enumerate(self.processes):
                if not process.alive:
                    self.deaths += 1
                    self.processes[number] = self._start(number)
            await asyncio.sleep(0.05)

    def stop(self) -> None:
        """Stop both embedders."""
        for process in self.processes:
            process.stop()


@pytest.fixture
def embedders(rabbitmq: Node, tmp_path: Path) -> Iterator[Embedders]:
    """Yield two ready embedders."""
    running = Embedders(rabbitmq, tmp_path)
    try:
        running.wait_ready()
        yield running
    finally:
        running.stop()


@pytest.fixture
async def broker(rabbitmq: Node) -> AsyncIterator[Broker]:
    """Connect a broker that sends the requests."""
    broker = AmqpBroker(rabbitmq.url, name="asker", publish_timeout_seconds=10)
    await broker.start(topology.ALL)
    # Other tests use the same node.
    await asyncio.to_thread(rabbitmq.ctl, "purge_queue", topology.QUARANTINE.name)
    yield broker
    await broker.close()


class Requester:
    """Publishes images and collects the answers by correlation id."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._queue: Queue = topology.reply_queue("asker")
        self.outcomes: dict[str, str] = {}
        self.listens = asyncio.Event()

    async def ask(self, name: str, image: bytes, queue: Queue) -> None:
        """Publish one image."""
        slip = Slip(correlation_id=name, reply_to=self._queue.name, final_reply_to=self._queue.name)
        await self._broker.publish(queue.name, Message.of(EmbedRequest(slip, image)))

    async def listen(self) -> None:
        """Receive answers until cancelled."""
        consumer = await self._broker.consume(self._queue, prefetch=0, auto_ack=True)
        self.listens.set()
        while True:
            for delivery in await consumer.take(64):
                match codec.decode(delivery.type, delivery.body):
                    case Embeddings() as made:
                        for item in made.items:
                            self.outcomes[item.slip.correlation_id] = "ok"
                    case Replies(items):
                        for reply in items:
                            assert isinstance(reply.outcome, Failure)
                            self.outcomes[reply.correlation_id] = reply.outcome.code


@pytest.mark.parametrize("queue", [topology.EMBED, topology.EMBED_BULK], ids=["one", "bulk"])
async def test_a_poisonous_image_kills_three_embedders_and_fails_no_other_image(
    embedders: Embedders, broker: Broker, queue: Queue
) -> None:
    """The image kills three embedders, then is answered and quarantined; others get vectors."""
    asker = Requester(broker)
    tasks = [asyncio.create_task(asker.listen()), asyncio.create_task(embedders.restart_dead())]
    await asker.listens.wait()
    for number in range(GOOD):
        await asker.ask(f"good-{number}", IMAGE, queue)
        if number == GOOD // 2:
            await asker.ask("poison", POISONED, queue)
    deadline = time.monotonic() + PATIENCE_SECONDS
    # The third death is answered at once, and noticed here up to 50 ms later.
    while (
        len(asker.outcomes) < GOOD + 1 or embedders.deaths < DEATHS
    ) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    expected = dict.fromkeys((f"good-{number}" for number in range(GOOD)), "ok")
    assert asker.outcomes == {**expected, "poison": "image_quarantined"}
    assert embedders.deaths == DEATHS
    # The embedders survive, and no queue still holds the image.
    await asyncio.to_thread(embedders.wait_ready)
    await asker.ask("after", IMAGE, queue)
    while "after" not in asker.outcomes and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    assert asker.outcomes["after"] == "ok"
    assert embedders.deaths == DEATHS
    assert await broker.depth(topology.EMBED_SUSPECTS.name) == 0
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    consumer = await broker.consume(topology.QUARANTINE, prefetch=0)
    (delivery,) = await consumer.take(10)
    assert (delivery.headers["reason"], delivery.headers["deaths"]) == ("image_quarantined", "3")
    assert delivery.headers["queue"] == queue.name
    delivery.ack()
    await consumer.close()


def _run(node: Node, *arguments: str, answer: str | None = None) -> Result:
    runner = CliRunner(env={"COLUMNS": "100", "TERM": "dumb", "SIMILE_AMQP_URL": node.url})
    return runner.invoke(main, ["quarantine", *arguments], input=answer)


async def _quarantine(broker: Broker, name: str, image: bytes, queue: Queue) -> None:
    """Quarantine an image as an embedder does."""
    slip = Slip(correlation_id=name, reply_to="next", final_reply_to="asker")
    message = Message.of(EmbedRequest(slip, image))
    headers = {
        "record_id": name, "reason": "image_quarantined", "queue": queue.name, "deaths": "3",
        "set_aside_unix_ms": str(time.time_ns() // 1_000_000), "format": "JPEG",
        "size_bytes": str(len(image)), "detail": "3 embedders died \x1b[2J[/b]",
    }  # fmt: skip
    kept = Message(message.type, message.body, persistent=True, headers=headers)
    await broker.publish(topology.QUARANTINE.name, kept)


async def test_the_quarantine_is_listed_shown_replayed_and_emptied(
    rabbitmq: Node, broker: Broker, tmp_path: Path
) -> None:
    """An operator lists records any number of times, replays one, and drops the rest."""
    for name in ("first", "second", "third"):
        await _quarantine(broker, name, POISONED, topology.EMBED)
    await broker.publish(topology.QUARANTINE.name, Message("a.Type", b"", persistent=True))

    def lines() -> list[str]:
        printed = _run(rabbitmq, "list").output.splitlines()
        words = [line.split()[0] for line in printed if line.strip()]
        return words[words.index("id") :]  # after log lines of other tests

    for _ in range(2):
        assert (await asyncio.to_thread(lines))[2:] == ["first", "second", "third", "?", "4"]
    image = tmp_path / "image"
    shown = await asyncio.to_thread(_run, rabbitmq, "show", "second", "--image", str(image))
    assert "3 embedders died \\x1b[2J[/b]" in shown.output
    assert "\x1b" not in shown.output
    assert image.read_bytes() == POISONED
    assert "unknown_record" in (await asyncio.to_thread(_run, rabbitmq, "show", "none")).output
    refused = await asyncio.to_thread(_run, rabbitmq, "replay", "?")
    assert "not_replayable" in refused.output
    late = await asyncio.to_thread(_run, rabbitmq, "replay", "first", "--timeout", "0.2")
    assert "deadline_exceeded" in late.output

    environment = {"SIMILE_AMQP_URL": rabbitmq.url, ANTIDOTE: "taken"}
    repaired = start(
        "repaired", ["-m", "tests.support.poison_embedder"], tmp_path / "repaired.log", environment
    )
    try:
        await asyncio.to_thread(wait_until, repaired.ready, "ready", repaired)
        again = await asyncio.to_thread(_run, rabbitmq, "replay", "first")
    finally:
        repaired.stop()
    assert again.output.endswith("embedded: first by fake@0/mean/3; dropped from quarantine\n")
    assert (await asyncio.to_thread(lines))[2:] == ["second", "third", "?", "3"]
    kept = await asyncio.to_thread(_run, rabbitmq, "drop", "second", answer="n\n")
    assert kept.exit_code != 0
    dropped = await asyncio.to_thread(_run, rabbitmq, "drop", "second", answer="y\n")
    assert dropped.output.endswith("dropped: 1\n")
    assert (await asyncio.to_thread(lines))[2:] == ["third", "?", "2"]
    await asyncio.to_thread(_run, rabbitmq, "drop", "--all", "--yes")
    assert (await asyncio.to_thread(lines))[-1] == "0"

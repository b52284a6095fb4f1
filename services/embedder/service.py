"""The embedder: images from two queues through the pipeline; interactive work goes first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from services.embedder.job import Job
from services.embedder.metrics import EmbedderMetrics
from services.embedder.model import Model
from services.embedder.outlet import Outlet
from services.embedder.pipeline import Pipeline
from services.embedder.settings import EmbedderSettings
from services.shared import lifecycle
from services.shared.contracts import EmbedRequest, codec
from services.shared.errors import BrokerUnavailable, ConsumerLost, Overloaded, UndecodableMessage
from services.shared.imaging import Limits
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Consumer, Delivery, Message, Queue
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry
from services.shared.telemetry.watchdog import Watchdog

_log = structlog.get_logger(__name__)

_LEAST_PREFETCH: Final = 16
_AT_ONCE: Final = 32

Load = Callable[[EmbedderSettings, Limits], Sequence[Model]]


async def run(
    settings: EmbedderSettings,
    shared: SharedSettings,
    broker: Broker,
    *,
    stop: asyncio.Event,
    telemetry: Telemetry,
) -> None:
    """Serve with the model that the settings name until `stop`, then finish what was taken.

    Raises StageDied, WeightsUnavailable, InvalidSettings.
    """
    # Here and not above: importing torch takes seconds, and tests bring a model of their own.
    from services.embedder.torch_model import load  # noqa: PLC0415

    await run_with(load, settings, shared, broker, stop=stop, telemetry=telemetry)


async def run_with(
    load: Load,
    settings: EmbedderSettings,
    shared: SharedSettings,
    broker: Broker,
    *,
    stop: asyncio.Event,
    telemetry: Telemetry,
) -> None:
    """`run` with any model."""
    limits = Limits(shared.image_max_bytes, shared.image_max_pixels, shared.image_max_aspect)
    telemetry.health.ready_when("model", lambda: "the model is being loaded")
    models = await asyncio.to_thread(load, settings, limits)
    metrics = EmbedderMetrics(telemetry.registry)
    watchdog = Watchdog(
        "model",
        unready_seconds=settings.unready_after_seconds,
        dead_seconds=settings.dead_after_seconds,
    )
    outlet = Outlet(broker, metrics, model_id=models[0].model_id, dimension=models[0].dimension)
    desk = _Desk()
    metrics.in_hand.set_function(lambda: desk.in_hand)

    async def finish(jobs: Sequence[Job]) -> None:
        await outlet.finish(jobs)
        desk.settled(len(jobs))

    pipeline = Pipeline(settings, models, metrics, watchdog, finish)
    try:
        await pipeline.warm()
        watchdog.register(telemetry.health)
        metrics.model.labels(model_id=models[0].model_id).set(len(models))
        _log.info("model ready", action="model_ready", model_id=models[0].model_id)
        prefetch = max(_LEAST_PREFETCH, 2 * settings.max_batch_size * len(models))
        intakes = [
            Intake(broker, queue, prefetch, pipeline, metrics, desk)
            for queue in (topology.EMBED, topology.EMBED_BULK)
        ]
        for intake in intakes:
            telemetry.health.ready_when(f"intake {intake.queue.name}", intake.unready)
        await _serve(pipeline, intakes, desk, stop, shared.drain_timeout_seconds)
    finally:
        pipeline.close()


async def _serve(
    pipeline: Pipeline,
    intakes: Sequence[Intake],
    desk: _Desk,
    stop: asyncio.Event,
    drain_timeout_seconds: float,
) -> None:
    drained = asyncio.Event()

    async def drain() -> None:
        await stop.wait()
        for intake in intakes:
            await intake.cancel()
        try:
            async with asyncio.timeout(drain_timeout_seconds):
                await desk.idle.wait()
        except TimeoutError:
            _log.warning("drain timed out", action="drain_timeout", in_hand=desk.in_hand)
        drained.set()
        await asyncio.Event().wait()

    stages = {f"intake {intake.queue.name}": intake.run() for intake in intakes}
    try:
        await lifecycle.supervise(drained, {**pipeline.stages(), **stages, "drain": drain()})
    finally:
        for intake in intakes:
            await intake.close()


class _Desk:
    """How many images are in hand."""

    def __init__(self) -> None:
        self.in_hand = 0
        self.idle = asyncio.Event()
        self.idle.set()

    def taken(self) -> None:
        self.in_hand += 1
        self.idle.clear()

    def settled(self, count: int) -> None:
        self.in_hand -= count
        if self.in_hand == 0:
            self.idle.set()


class Intake:
    """One queue's way into the pipeline, on a channel of its own."""

    def __init__(
        self,
        broker: Broker,
        queue: Queue,
        prefetch: int,
        pipeline: Pipeline,
        metrics: EmbedderMetrics,
        desk: _Desk,
    ) -> None:
        self.queue = queue
        self._broker = broker
        self._prefetch = prefetch
        self._pipeline = pipeline
        self._metrics = metrics
        self._desk = desk
        self._consumer: Consumer | None = None
        self._cancelled = False

    def unready(self) -> str | None:
        """Why no image can be taken now."""
        return None if self._consumer is not None else "not consuming: the broker is away"

    async def run(self) -> None:
        """Take for ever, again after each loss of the queue, until cancelled."""
        while not self._cancelled:
            self._consumer = await self._broker.consume(self.queue, prefetch=self._prefetch)
            try:
                while True:
                    for delivery in await self._consumer.take(_AT_ONCE):
                        await self._accept(delivery)
            except ConsumerLost as error:
                if not self._cancelled:
                    _log.warning(str(error), action=error.code)
                    self._consumer = None
        await asyncio.Event().wait()

    async def cancel(self) -> None:
        """Take no more; what was taken can still be settled."""
        self._cancelled = True
        if self._consumer is not None:
            await self._consumer.cancel()

    async def close(self) -> None:
        """End the consumer; what isn't settled goes back to the queue."""
        if self._consumer is not None:
            await self._consumer.close()

    async def _accept(self, delivery: Delivery) -> None:
        try:
            message = codec.decode(delivery.type, delivery.body)
            if not isinstance(message, EmbedRequest):
                await self._bury(delivery, f"{delivery.type} is not for {self.queue.name}")
                return
        except UndecodableMessage as error:
            await self._bury(delivery, str(error))
            return
        if delivery.redelivered:
            self._metrics.redelivered.inc()
        self._desk.taken()
        interactive = self.queue is topology.EMBED
        self._pipeline.submit(Job(message.slip, message.image, delivery, interactive))

    async def _bury(self, delivery: Delivery, reason: str) -> None:
        """What can never be handled goes to the dead-letter queue with its reason."""
        self._metrics.undecodable.inc()
        _log.error(reason, action=UndecodableMessage.code, queue=self.queue.name)
        dead = Message(delivery.type, delivery.body, persistent=True, headers={"reason": reason})
        try:
            await self._broker.publish(topology.dead_letter_queue(self.queue.name), dead)
        except BrokerUnavailable:
            delivery.reject(requeue=True)
            return
        except Overloaded as error:
            # Requeued it would come back at once, for ever: the log line is all that is kept.
            _log.error(str(error), action="dead_letter_dropped", queue=self.queue.name)
        delivery.ack()

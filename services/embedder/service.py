"""The embedder: images from two queues through the pipeline; interactive work goes first."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Final, NamedTuple

import structlog

from services.embedder.consumer import Desk, Intake
from services.embedder.decoding import Decoder
from services.embedder.device_use import show_devices
from services.embedder.isolation import Suspects
from services.embedder.metrics import EmbedderMetrics
from services.embedder.models.loading import load
from services.embedder.models.model import Model
from services.embedder.pipeline import Pipeline
from services.embedder.results import Outlet
from services.embedder.settings import EmbedderSettings
from services.shared import lifecycle
from services.shared.imaging import Limits
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker
from services.shared.messaging.quarantine import Quarantine
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry
from services.shared.telemetry.health import lasting
from services.shared.telemetry.watchdog import ProgressWatch, StallThresholds, Watchdog

_log = structlog.get_logger(__name__)

_LEAST_PREFETCH: Final = 16

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

    Raises StageDied, WeightsUnavailable, InvalidSettings, MissingExtra, RuntimeUnfit.
    """
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
    limits = shared.image_limits
    health = telemetry.health
    health.ready_when("model", lambda: "the model is being loaded")
    models = await lifecycle.unless_stopped(stop, asyncio.to_thread(load, settings, limits))
    if models is None:
        return
    metrics = EmbedderMetrics(telemetry.registry)
    watched = _Watched(Watchdog("decode"), Watchdog("model"), Watchdog("results"))
    desk = Desk(ProgressWatch(watched))
    metrics.in_hand.set_function(lambda: desk.flow.in_flight)
    quarantine = Quarantine(
        broker,
        replica=shared.replica,
        model_id=models[0].model_id,
        keeps_messages=settings.quarantine_images,
    )
    tracer = telemetry.tracing.tracer("embedder")
    outlet = Outlet(broker, metrics, watched.sending, tracer, quarantine, models[0], desk.settled)
    decoder = Decoder(
        models[0].prepare,
        limits,
        metrics,
        watched.decoding,
        input_size=models[0].input_size,
        timeout_seconds=settings.decode_timeout_seconds,
    )
    pipeline = Pipeline(
        settings, models, decoder, metrics, watched.modelling, tracer, outlet.finish
    )
    try:
        await pipeline.start()
        # Not earlier: a model may be long in getting warm.
        patience = StallThresholds(settings.unready_after_seconds, settings.dead_after_seconds)
        for stage in watched:
            patience.watch(health, stage.what, stage.stalled)
        patience.watch(health, "images", desk.flow.stalled)
        batch_limit = settings.max_batch_size or models[0].batch_limit
        _show(models, metrics, batch_limit=batch_limit, decoding=pipeline.decoding)
        prefetch = max(_LEAST_PREFETCH, 2 * batch_limit * len(models))
        suspects = Suspects(broker, metrics, most_deaths=settings.most_deaths)
        ways = {topology.EMBED: prefetch, topology.EMBED_BULK: prefetch, topology.EMBED_SUSPECTS: 1}
        intakes = [
            Intake(broker, queue, most, pipeline, metrics, desk,
                   suspects=suspects, quarantine=quarantine)
            for queue, most in ways.items()
        ]  # fmt: skip
        for intake in intakes:
            health.ready_when(f"intake {intake.queue.name}", intake.unready)
            deaf = lasting(intake.deaf, settings.dead_after_seconds)
            health.live_when(f"intake {intake.queue.name}", deaf)
        await _serve(pipeline, intakes, desk, stop, shared.drain_timeout_seconds)
    finally:
        pipeline.close()


class _Watched(NamedTuple):
    """The stages that may stand still."""

    decoding: Watchdog
    modelling: Watchdog
    sending: Watchdog


def _show(
    models: Sequence[Model], metrics: EmbedderMetrics, *, batch_limit: int, decoding: int
) -> None:
    """Tell, once, what this embedder works with."""
    model, runs = models[0], models[0].runtime
    _log.info("model ready", action="model_ready", model_id=model.model_id,
              workers=len(models), **asdict(runs))  # fmt: skip
    metrics.model.labels(model.model_id, runs.library, runs.precision, runs.device).set(len(models))
    metrics.batch_limit.set(batch_limit)
    metrics.decode_threads.set(decoding)
    if runs.device != "cpu":
        # Not earlier: importing torch takes seconds, and an image for CPUs holds none.
        show_devices(metrics, importlib.import_module("torch").cuda)


async def _serve(
    pipeline: Pipeline,
    intakes: Sequence[Intake],
    desk: Desk,
    stop: asyncio.Event,
    drain_timeout_seconds: float,
) -> None:
    async def drain() -> None:
        for intake in intakes:
            await intake.cancel()
        unstarted = pipeline.give_up_unstarted()
        for job in unstarted:
            job.delivery.reject(requeue=True)
        desk.settled(len(unstarted))
        await lifecycle.wait_idle(
            desk.idle.wait(), drain_timeout_seconds, lambda: desk.flow.in_flight
        )

    stages = {f"intake {intake.queue.name}": intake.run() for intake in intakes}
    try:
        await lifecycle.supervise({**pipeline.stages(), **stages}, until=stop, drain=drain)
    finally:
        for intake in intakes:
            await intake.close()

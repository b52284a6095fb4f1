"""The metrics of the embedder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.embedder.batcher import Reason
from services.shared.errors import (
    DecoderCrashed,
    DecodingTooSlow,
    ImageQuarantined,
    Internal,
    UndecodableMessage,
)
from services.shared.telemetry.durations import Durations
from services.shared.telemetry.metrics import BATCH_BUCKETS, Children
from services.shared.telemetry.stopwatch import Stopwatch
from services.shared.telemetry.tracing import Tracer
from services.shared.telemetry.watchdog import Watchdog

_QUARANTINED: Final = (
    DecoderCrashed,
    DecodingTooSlow,
    ImageQuarantined,
    Internal,
    UndecodableMessage,
)


class EmbedderMetrics:
    """Counts and measures the work of an embedder."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._add_images(registry)
        self._add_batches(registry)
        self._add_losses(registry)
        self._add_devices(registry)

    def count(self, code: str, intake: str) -> None:
        """Count an image by its outcome."""
        self._images.of(intake, code).inc()

    def observe(self, watch: Stopwatch, intake: str, trace: str) -> None:
        """Observe an image's time in each stage; trace: the id of its trace, or empty."""
        self._stages.observe_stages(watch.stages, intake, trace_id=trace)

    def _add_images(self, registry: CollectorRegistry) -> None:
        images = Counter(
            "simile_embedder_images_total",
            "Images by intake (interactive, bulk, or canary) and outcome: ok, or an error's code.",
            ["intake", "code"],
            registry=registry,
        )
        self._images = Children(images)
        self._stages = Durations(
            "simile_embedder_stage_seconds",
            "Time of an image in each stage, by intake: embed_queue, decode, batch_wait, model "
            "(of its batch), publish.",
            ["intake", "stage"],
            registry,
        )
        self.decode_threads = Gauge(
            "simile_embedder_decode_threads",
            "Threads that decode images.",
            registry=registry,
        )
        self.stuck_decodes = Gauge(
            "simile_embedder_stuck_decode_threads",
            "Threads that are still busy with an image that was answered with decoding_too_slow.",
            registry=registry,
        )
        self.in_flight = Gauge(
            "simile_embedder_in_hand_images",
            "Images taken from the queues and not settled yet.",
            registry=registry,
        )

    def _add_batches(self, registry: CollectorRegistry) -> None:
        self.batch_images = Histogram(
            "simile_embedder_batch_images",
            "Images in one batch.",
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self.batch_limit = Gauge(
            "simile_embedder_batch_limit_images",
            "Images in one batch, at most.",
            registry=registry,
        )
        batches = Counter(
            "simile_embedder_batches_total",
            "Batches by the reason why they started: full; free (a worker was free); waited (the "
            "maximum wait was over); alone (a redelivered image).",
            ["reason"],
            registry=registry,
        )
        reasons: tuple[Reason, ...] = ("full", "free", "waited", "alone")
        self.batches = {reason: batches.labels(reason) for reason in reasons}
        self.worker_busy = Counter(
            "simile_embedder_worker_busy_seconds_total",
            "Time that the workers were busy with their model, and with decoding where they decode "
            "for themselves; divide by the number of workers for their utilization.",
            registry=registry,
        )
        self.model = Gauge(
            "simile_embedder_model_workers",
            "Workers of this embedder, by model, runtime, precision and device.",
            ["model_id", "runtime", "precision", "device"],
            registry=registry,
        )
        self.model_faults = Counter(
            "simile_embedder_model_faults_total",
            "Batches that the model failed on; they were halved and tried again.",
            registry=registry,
        )

    def _add_losses(self, registry: CollectorRegistry) -> None:
        self.expired = Counter(
            "simile_embedder_expired_total",
            "Images dropped after their deadline, by the stage that was saved.",
            ["before"],
            registry=registry,
        )
        self.redelivered = Counter(
            "simile_embedder_redelivered_total",
            "Images that an embedder took and did not finish.",
            registry=registry,
        )
        self.suspects = Counter(
            "simile_embedder_suspects_total",
            "Redelivered images that were moved to the suspects' queue, to be tried one at a time.",
            registry=registry,
        )
        self.given_back = Counter(
            "simile_embedder_given_back_total",
            "Images given back to their queue, since the broker did not take their results.",
            registry=registry,
        )
        self.unanswerable = Counter(
            "simile_embedder_unanswerable_total",
            "Results whose next queue no longer exists.",
            registry=registry,
        )
        self.undecodable = Counter(
            "simile_embedder_undecodable_total",
            "Messages that could not be decoded and were quarantined.",
            registry=registry,
        )
        self.quarantined = Counter(
            "simile_embedder_quarantined_total",
            "Images and messages that were quarantined, by error code.",
            ["code"],
            registry=registry,
        )
        # Start at 0: PromQL's `increase` does not see the first event of a new series.
        for before in ("decode", "model"):
            self.expired.labels(before)
        for reason_of in _QUARANTINED:
            self.quarantined.labels(reason_of.code)

    def _add_devices(self, registry: CollectorRegistry) -> None:
        self.device_memory_used = Gauge(
            "simile_embedder_device_memory_used_bytes",
            "Memory of a GPU that is in use, by this process or another; absent without a GPU.",
            ["device"],
            registry=registry,
        )
        self.device_memory_total = Gauge(
            "simile_embedder_device_memory_total_bytes",
            "Memory of a GPU; absent without one.",
            ["device"],
            registry=registry,
        )
        self.device_utilization = Gauge(
            "simile_embedder_device_utilization_ratio",
            "Share of the last second or less in which a GPU was busy, 0 to 1; absent without a "
            "GPU or without nvidia-ml-py.",
            ["device"],
            registry=registry,
        )


@dataclass(frozen=True, slots=True)
class Instruments:
    """Observes an embedder.

    Attributes:
        metrics: counts and measures.
        tracer: records spans.
        decoding: sees how long each image is being decoded.
        model: sees how long each batch runs.
        results: sees how long each publish takes.
    """

    metrics: EmbedderMetrics
    tracer: Tracer
    decoding: Watchdog = field(default_factory=lambda: Watchdog("decode"))
    model: Watchdog = field(default_factory=lambda: Watchdog("model"))
    results: Watchdog = field(default_factory=lambda: Watchdog("results"))

    @property
    def watchdogs(self) -> Sequence[Watchdog]:
        """The watchdogs of all stages."""
        return self.decoding, self.model, self.results


class Cuda(Protocol):
    """The part of `torch.cuda` that the metrics use."""

    def device_count(self) -> int:
        """Return the number of GPUs."""

    def mem_get_info(self, device: int) -> tuple[int, int]:
        """Return the free and the total memory, in bytes."""

    def utilization(self, device: int) -> int:
        """Return the utilization in percent. Raises any error of nvidia-ml-py."""


def show_devices(metrics: EmbedderMetrics, cuda: Cuda) -> None:
    """Add the metrics of every GPU."""
    for index in range(cuda.device_count()):
        device = f"cuda:{index}"
        total = cuda.mem_get_info(index)[1]
        metrics.device_memory_total.labels(device).set(total)
        metrics.device_memory_used.labels(device).set_function(partial(_used_bytes, cuda, index))
        if not math.isnan(_utilization(cuda, index)):
            metrics.device_utilization.labels(device).set_function(
                partial(_utilization, cuda, index)
            )


def _used_bytes(cuda: Cuda, index: int) -> float:
    try:
        free, total = cuda.mem_get_info(index)
    except RuntimeError:  # a lost GPU must not break the scrape
        return math.nan
    return total - free


def _utilization(cuda: Cuda, index: int) -> float:
    try:
        return cuda.utilization(index) / 100
    except Exception:  # noqa: BLE001 (the driver's library raises its own errors, or is missing)
        return math.nan

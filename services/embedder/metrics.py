"""The embedder's metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.shared.telemetry.metrics import BATCH_BUCKETS, DURATION_BUCKETS


class EmbedderMetrics:
    """What an embedder counts and measures."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.images = Counter(
            "simile_embedder_images_total",
            "Images by intake (interactive or bulk) and outcome: ok, or an error's code.",
            ["intake", "code"],
            registry=registry,
        )
        self.batch_images = Histogram(
            "simile_embedder_batch_images",
            "Images in one batch.",
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "simile_embedder_stage_seconds",
            "Time an image spent in each stage: decode, wait, model.",
            ["stage"],
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.in_hand = Gauge(
            "simile_embedder_in_hand_images",
            "Images taken from the queues and not settled yet.",
            registry=registry,
        )
        self.expired = Counter(
            "simile_embedder_expired_total",
            "Images dropped because nobody waited any more, by the stage that this saved.",
            ["before"],
            registry=registry,
        )
        self.redelivered = Counter(
            "simile_embedder_redelivered_total",
            "Images that another embedder had taken and not finished.",
            registry=registry,
        )
        self.unanswerable = Counter(
            "simile_embedder_unanswerable_total",
            "Results whose next queue was gone.",
            registry=registry,
        )
        self.undecodable = Counter(
            "simile_embedder_undecodable_total",
            "Messages that could not be decoded and went to the dead-letter queue.",
            registry=registry,
        )
        self.model_faults = Counter(
            "simile_embedder_model_faults_total",
            "Batches that the model failed on; their images were then tried one by one.",
            registry=registry,
        )
        self.model = Gauge(
            "simile_embedder_model_workers",
            "Workers of the model that this embedder runs.",
            ["model_id"],
            registry=registry,
        )

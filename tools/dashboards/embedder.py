"""Defines the embedder's dashboard: capacity, and the bottleneck among its resources."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard

from tools.dashboards.colors import OUTCOMES, SHARES, STAGES
from tools.dashboards.frame import frame, row
from tools.dashboards.panels import (
    PLAIN,
    AnyPanel,
    number,
    rising,
    rows,
    timeseries,
)
from tools.dashboards.queries import (
    Query,
    mean,
    model_workers_busy,
    quantile,
    queue_depth,
    rate,
    rises,
    select,
    total,
)

_IMAGES: Final = "simile_embedder_images_total"
_STAGE: Final = "simile_embedder_stage_seconds"
_BATCH: Final = "simile_embedder_batch_images"
_INTERACTIVE: Final = 'intake="interactive"'


def embedder() -> Dashboard:
    """Return the embedder's dashboard."""
    board = frame(
        "simile-embedder",
        "Simile / Embedder",
        "Do embedders keep up? If not: more of them, more decoding, larger batches, a GPU?",
    )
    row(board, "Do embedders keep up?", *_headline())
    row(board, "What is the bottleneck?", *_bottleneck())
    row(board, "Batches", *_batches())
    row(board, "Replicas and devices", *_replicas())
    return board


def _headline() -> list[AnyPanel]:
    return [
        number(
            "Images",
            "Images a second, of users' queries and of index builds.",
            Query(total(rate(_IMAGES))),
            unit="suffix: /s",
            span=6,
        ),
        number(
            "Model workers busy",
            "Share of the workers' time spent in the model. Over 80 %: add embedders.",
            Query(model_workers_busy()),
            unit="percentunit",
            span=6,
            steps=rising(0.8, 0.95),
        ),
        number(
            "Time in the queue, p99",
            "99 of 100 query images are taken from the queue within this time. Over 0.5 s: add "
            "embedders.",
            Query(quantile(0.99, _STAGE, _INTERACTIVE, 'stage="embed_queue"')),
            unit="s",
            span=6,
            steps=rising(0.1, 0.5),
        ),
        number(
            "Batch fill",
            "A mean batch's share of the largest one. Small is fine while workers are idle.",
            Query(f"{mean(_BATCH)} / avg({select('simile_embedder_batch_limit_images')})"),
            unit="percentunit",
            span=6,
            steps=PLAIN,
        ),
    ]


def _bottleneck() -> list[AnyPanel]:
    decoding = total(rate(f"{_STAGE}_sum", 'stage="decode"'))
    return [
        timeseries(
            "Workers and decoding, share in use",
            "Model workers at 100 %: add embedders, or a GPU. On a CPU they decode, too, and "
            "decoding is a part of their work. Beside a GPU, decoding at 100 % while workers "
            "idle: raise SIMILE_EMBEDDER_DECODE_THREADS.",
            Query(model_workers_busy(), "model workers"),
            Query(
                f"{decoding} / {total(select('simile_embedder_decode_threads'))}", "decode threads"
            ),
            unit="percentunit",
            highest=1,
            steps=rising(0.8, 0.95),
            colors={"model workers": STAGES["model"], "decode threads": STAGES["decode"]},
        ),
        timeseries(
            "Mean time of a query's image by stage",
            "Waiting (yellow) grows when embedders don't keep up; blue is decoding, orange the "
            "model.",
            Query(mean(_STAGE, _INTERACTIVE, by=("stage",)), "{{stage}}"),
            unit="s",
            stacked=True,
            colors=STAGES,
        ),
        timeseries(
            "Waiting in queues",
            "simile.embed holds users' images, and should be short; simile.embed.bulk an index "
            "build's, which may wait.",
            Query(queue_depth("simile.embed|simile.embed.bulk"), "{{queue}}"),
            unit="short",
            colors={"simile.embed": STAGES["model"], "simile.embed.bulk": STAGES["messaging"]},
        ),
    ]


def _batches() -> list[AnyPanel]:
    return [
        timeseries(
            "Images by intake and outcome",
            "Outcomes of the images, of users' queries (interactive) and of index builds (bulk).",
            Query(total(rate(_IMAGES), "intake", "code"), "{{intake}} {{code}}"),
            unit="suffix: /s",
            stacked=True,
            colors={"interactive ok": OUTCOMES["ok"], "bulk ok": STAGES["messaging"]},
        ),
        timeseries(
            "Images in a batch",
            "Batches grow under load: images that arrive while all workers are busy go together.",
            Query(mean(_BATCH), "mean"),
            Query(quantile(0.99, _BATCH), "p99"),
            Query(f"max({select('simile_embedder_batch_limit_images')})", "limit"),
            unit="none",
            colors={"mean": STAGES["model"], "p99": SHARES["p99"], "limit": STAGES["messaging"]},
        ),
        timeseries(
            "Why batches went",
            "free: a worker was idle. full: the largest batch was reached, a sign of load. waited: "
            "the wait set was over. alone: a redelivered image.",
            Query(total(rate("simile_embedder_batches_total"), "reason"), "{{reason}}"),
            unit="suffix: /s",
            stacked=True,
        ),
    ]


def _replicas() -> list[AnyPanel]:
    return [
        rows(
            "Runtime of the model",
            "Workers of each embedder, and the runtime, precision and device they use.",
            Query(
                total(
                    select("simile_embedder_model_workers"), "pod", "runtime", "precision", "device"
                )
            ),
            columns={
                "pod": "Pod",
                "runtime": "Runtime",
                "precision": "Precision",
                "device": "Device",
                "Value": "Workers",
            },
            span=7,
        ),
        timeseries(
            "Busy by embedder",
            "Each embedder's share in use. One far above the others has slower cores, or "
            "neighbours.",
            Query(model_workers_busy("pod"), "{{pod}}"),
            unit="percentunit",
            highest=1,
            span=6,
        ),
        _gpu(),
        timeseries(
            "Failures",
            "Images past their deadline, redelivered after an embedder died, returned to the queue "
            "because the broker took no results, or quarantined; batches that failed in the model; "
            "results without a caller; messages in an unknown format.",
            *rises(
                "embedder",
                "expired",
                "redelivered",
                "given_back",
                "model_faults",
                "unanswerable",
                "undecodable",
                "quarantined",
            ),
            unit="suffix: /s",
            span=6,
        ),
    ]


def _gpu() -> AnyPanel:
    return timeseries(
        "GPU",
        "Utilisation of each device, and its memory in use. Empty where there is no GPU.",
        Query(
            f"avg by (device) ({select('simile_embedder_device_utilization_ratio')})",
            "{{device}} busy",
        ),
        Query(
            f"avg by (device) ({select('simile_embedder_device_memory_used_bytes')} / "
            f"{select('simile_embedder_device_memory_total_bytes')})",
            "{{device}} memory",
        ),
        unit="percentunit",
        highest=1,
        span=5,
    )

"""Recommends replicas, batch sizes and thresholds from measurements, with reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.bench.capacity import Capacity
from services.bench.load.meter import Measured
from services.bench.load.scrape import Batches

_CORE_SHARE: Final = 0.7
"""The share of a core that a process with one event loop can use before its queue grows."""
_MIN_REPLICAS: Final = 2
_BATCH_SHARE: Final = 0.95
_FULL_SHARE: Final = 0.9
_MIN_PREFETCH: Final = 16


@dataclass(frozen=True, slots=True)
class SizingGoal:
    """Holds the goal of the sizing.

    Attributes:
        p99_seconds: the target of the 99th percentile.
        rate: images per second; None recommends only thresholds.
        headroom: the share of an embedder's capacity that stays free.
        wait_share: the share of the target that an image may wait in the queue.
    """

    p99_seconds: float
    rate: float | None = None
    headroom: float = 0.3
    wait_share: float = 0.5


@dataclass(frozen=True, slots=True)
class Seen:
    """Holds the measurements; CPU is per served image at capacity, NaN where not known.

    Attributes:
        capacity: images per second.
        embedders: the number of replicas.
        batches: at the highest load.
        workers: model workers of all embedders; 0 where not known.
    """

    capacity: float
    embedders: int
    upload_cpu_seconds: float = math.nan
    searcher_cpu_seconds: float = math.nan
    batches: Batches | None = None
    workers: int = 0

    @property
    def pod_rate(self) -> float:
        """Images per second of one embedder."""
        return self.capacity / self.embedders


@dataclass(frozen=True, slots=True)
class Advice:
    """Recommends a value of a setting, with the reason in a sentence."""

    setting: str
    value: str
    reason: str


def seen_at(capacity: Capacity, measured: Sequence[Measured], embedders: int | None) -> Seen | None:
    """Collect the measurements of the best run, and the batches of the run that served most.

    Args:
        capacity: the result of the search.
        measured: all runs.
        embedders: their number; None takes the number of endpoints with an embedder.

    Returns:
        The measurements; None without a best run.
    """
    best = capacity.best
    if best is None:
        return None
    spent = best.spent
    counted = spent.replicas("embedder") if spent is not None else 0
    return Seen(
        capacity=capacity.rate,
        embedders=embedders or max(1, counted),
        upload_cpu_seconds=best.cpu_seconds_of("upload"),
        searcher_cpu_seconds=best.cpu_seconds_of("searcher"),
        batches=_fullest(measured),
        workers=spent.workers if spent is not None else 0,
    )


def _fullest(measured: Sequence[Measured]) -> Batches | None:
    """Return the batches of the run that served most, since low rates fill no batches."""
    known = [one for one in measured if one.spent is not None and one.spent.batches.count]
    most = max(known, key=lambda one: one.run.goodput, default=None)
    return most.spent.batches if most is not None and most.spent is not None else None


def advise(goal: SizingGoal, seen: Seen) -> Sequence[Advice]:
    """Return all recommendations that the measurements allow."""
    advice: list[Advice] = []
    if goal.rate is not None:
        advice += [
            embedders(goal.rate, seen.pod_rate, goal.headroom),
            front("upload", goal.rate, seen.upload_cpu_seconds),
            front("searcher", goal.rate, seen.searcher_cpu_seconds),
        ]
    advice.append(queue_length(seen.pod_rate, goal))
    if seen.batches is not None and seen.batches.count:
        limit = batch_size(seen.batches)
        workers = max(1, seen.workers // seen.embedders)
        advice += [limit, prefetch(int(limit.value), workers)]
    return advice


def embedders(rate: float, pod_rate: float, headroom: float) -> Advice:
    """Recommend the replicas of the embedder for a rate."""
    usable = pod_rate * (1 - headroom)
    replicas = math.ceil(rate / usable)
    return Advice(
        "embedder replicas",
        str(replicas),
        f"one answers {pod_rate:.3g} images/s within the target; with {headroom:.0%} kept free for "
        f"peaks and for a replica that is lost, {usable:.3g}: {rate:g} / {usable:.3g}, rounded up.",
    )


def front(service: str, rate: float, cpu_seconds: float) -> Advice:
    """Recommend the replicas of a service with one event loop: at least two, for restarts."""
    setting = f"{service} replicas"
    if math.isnan(cpu_seconds):
        return Advice(
            setting,
            f"at least {_MIN_REPLICAS}",
            "two, so that a restart is not seen; how many the rate needs is not known: run the "
            "services as processes of their own, and give their admin addresses with --metrics.",
        )
    cores = rate * cpu_seconds
    replicas = max(_MIN_REPLICAS, math.ceil(cores / _CORE_SHARE))
    return Advice(
        setting,
        str(replicas),
        f"an image takes {1000 * cpu_seconds:.2f} ms of its CPU, so {rate:g}/s take {cores:.2f} "
        f"cores; one replica is given {_CORE_SHARE:.0%} of a core, and two are the least, so that "
        "a restart is not seen.",
    )


def queue_length(pod_rate: float, goal: SizingGoal) -> Advice:
    """Recommend KEDA's target of waiting messages for each embedder."""
    wait_seconds = goal.p99_seconds * goal.wait_share
    length = max(1, math.floor(pod_rate * wait_seconds))
    return Advice(
        "KEDA queue length per embedder (simile.embed)",
        str(length),
        f"an embedder works {pod_rate:.3g} images/s off, so {length} wait up to {wait_seconds:g} s,"
        f" {goal.wait_share:.0%} of the target of {goal.p99_seconds:g} s; count them over KEDA's "
        "http protocol, which sees unacknowledged messages too.",
    )


def batch_size(batches: Batches) -> Advice:
    """Recommend the maximum batch size from the batches under load."""
    filled = sorted(limit for limit, count in batches.by_limit.items() if count)
    finite = [limit for limit in filled if math.isfinite(limit)]
    limit = batches.limit_of(_BATCH_SHARE) or 1.0
    chosen = int(limit if math.isfinite(limit) else max(finite, default=1.0))
    mean = batches.mean_images
    full = mean >= _FULL_SHARE * max(finite, default=1.0) > 1
    hint = (
        " They are nearly all full: on a GPU try twice as many, on a CPU more gains nothing."
        if full
        else ""
    )
    return Advice(
        "SIMILE_EMBEDDER_MAX_BATCH_SIZE",
        str(chosen),
        f"under the most load a batch held {mean:.1f} images on average, and {_BATCH_SHARE:.0%} of "
        f"them at most {chosen}: a smaller limit would cut batches, a larger one would rarely be "
        f"reached.{hint}",
    )


def prefetch(limit: int, workers: int) -> Advice:
    """Explain the prefetch of an embedder, which follows from the batch size."""
    taken = max(_MIN_PREFETCH, 2 * limit * workers)
    return Advice(
        "embedder prefetch",
        f"{taken} (nothing to set)",
        f"two batches of {limit} for each of {workers} model workers, and {_MIN_PREFETCH} at "
        "least: one in the model, the next one being decoded; the embedder takes it so by itself.",
    )

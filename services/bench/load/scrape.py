"""Reads the services' /metrics before and after a run: CPU seconds, and how full batches were."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from services.clients import admin
from services.shared.telemetry import metric_names
from services.shared.telemetry.samples import Histogram, Samples

_CPU: Final = "process_cpu_seconds_total"
_BATCHES: Final = "simile_embedder_batch_images"
_WORKERS: Final = "simile_embedder_model_workers"


@dataclass(frozen=True, slots=True)
class Batches:
    """Counts the embedders' batches; `by_limit` has batches by upper limit, not cumulative."""

    count: float = 0.0
    images: float = 0.0
    by_limit: Mapping[float, float] = field(default_factory=dict)

    @property
    def mean_images(self) -> float:
        """The mean images of a batch; NaN without batches."""
        return self.images / self.count if self.count else float("nan")

    def limit_of(self, share: float) -> float | None:
        """Return the smallest limit for this share of the batches; None without batches."""
        seen = 0.0
        for limit, count in sorted(self.by_limit.items()):
            seen += count
            if self.count and seen >= share * self.count:
                return limit
        return None


@dataclass(frozen=True, slots=True)
class Reading:
    """Holds the metrics of an endpoint: its services, its CPU, batches and model workers."""

    services: Sequence[str]
    cpu_seconds: float | None
    batches: Batches
    workers: float


@dataclass(frozen=True, slots=True)
class Spent:
    """Holds the resources used between two readings: CPU seconds by process, and batches."""

    cpu_seconds: Mapping[str, float]
    services: Mapping[str, Sequence[str]]
    batches: Batches
    workers: int = 0

    def of_service(self, service: str) -> float | None:
        """Return the CPU seconds of the processes that run only this service; None without one."""
        found = [
            seconds
            for process, seconds in self.cpu_seconds.items()
            if list(self.services[process]) == [service]
        ]
        return sum(found) if found else None

    def replicas(self, service: str) -> int:
        """Count the processes that run this service."""
        return sum(service in held for held in self.services.values())


async def fetch(urls: Sequence[str]) -> Mapping[str, str]:
    """Fetch every endpoint's text by URL; it is parsed later, which takes the generator's CPU.

    Raises Unreachable for an endpoint that doesn't answer.
    """
    async with admin.session() as session:
        texts = await asyncio.gather(*(admin.metrics(session, url) for url in urls))
    return dict(zip(urls, texts, strict=True))


def spent(before: Mapping[str, str], after: Mapping[str, str]) -> Spent:
    """Return the difference; a process that was restarted counts from zero.

    Raises Unreachable for a text that isn't Prometheus's.
    """
    cpu, services, batches, workers = {}, {}, Batches(), 0.0
    for url, text in after.items():
        now = admin.parsed(url, text)
        reading = _reading(now.since(admin.parsed(url, before[url])))
        name = _name(url, reading)
        services[name] = reading.services
        workers += reading.workers
        batches = _sum(batches, reading.batches)
        if reading.cpu_seconds is not None:
            cpu[name] = reading.cpu_seconds
    return Spent(cpu, services, batches, int(workers))


def read(url: str, text: str) -> Reading:
    """Parse an endpoint's text. Raises Unreachable when it is not Prometheus's."""
    return _reading(admin.parsed(url, text))


def _reading(samples: Samples) -> Reading:
    return Reading(
        services=metric_names.services_of(samples),
        cpu_seconds=samples.one(_CPU),
        batches=_batches(samples.histogram(_BATCHES)),
        workers=samples.one(_WORKERS) or 0.0,
    )


def _batches(images: Histogram) -> Batches:
    by_limit, below = {}, 0.0
    for limit, count in sorted(images.cumulative.items()):
        by_limit[limit] = count - below
        below = count
    return Batches(images.count, images.sum, by_limit)


def _name(url: str, reading: Reading) -> str:
    parts = urlsplit(url)
    match reading.services:
        case []:
            return parts.netloc
        case [service]:
            return f"{service} {parts.netloc}"
        case _:
            return f"simile up {parts.netloc}"


def _sum(one: Batches, other: Batches) -> Batches:
    limits = one.by_limit.keys() | other.by_limit.keys()
    return Batches(
        one.count + other.count,
        one.images + other.images,
        {limit: one.by_limit.get(limit, 0.0) + other.by_limit.get(limit, 0.0) for limit in limits},
    )

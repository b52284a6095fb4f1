"""Histograms of durations, for what is counted many times a query.

The client library's take three times as long, for a lock and a walk through the buckets; twenty of
them are noticed. All have one layout of buckets, so that a Prometheus which keeps classic
histograms as native ones of custom buckets can sum them: native ones the library does not offer.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Exemplar, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from services.shared.telemetry.metrics import DURATION_BUCKETS

_LIMITS: Final = (*map(floatToGoString, DURATION_BUCKETS), "+Inf")


class Series:
    """The durations under one set of labels."""

    __slots__ = ("_counts", "_exemplars", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * len(_LIMITS)
        self._sum = 0.0
        self._exemplars: dict[int, Exemplar] = {}

    def observe(self, seconds: float, trace_id: str = "") -> None:
        """Count it; from the event loop's thread alone. trace_id: where to see it, if anywhere."""
        bucket = bisect_left(DURATION_BUCKETS, seconds)
        self._counts[bucket] += 1
        self._sum += seconds
        if trace_id:
            self._exemplars[bucket] = Exemplar({"trace_id": trace_id}, seconds, time.time())

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Show it."""
        buckets, below = [], 0
        for bucket, limit in enumerate(_LIMITS):
            below += self._counts[bucket]
            exemplar = self._exemplars.get(bucket)
            buckets.append((limit, below) if exemplar is None else (limit, below, exemplar))
        family.add_metric(labels, buckets, self._sum)


class Durations(Collector):
    """A histogram with labels, the last of which may be a stage."""

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labelnames = tuple(labels)
        self._series: dict[tuple[str, ...], Series] = {}
        registry.register(self)

    def of(self, *labels: str) -> Series:
        """The series under these labels."""
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = Series()
        return series

    def observe_stages(
        self, seconds: Mapping[str, float], *labels: str, trace_id: str = ""
    ) -> None:
        """Count each stage, which is the last label, after these."""
        for stage, spent in seconds.items():
            self.of(*labels, stage).observe(spent, trace_id)

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """What it is, without a value."""
        return [self._family()]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Every series."""
        family = self._family()
        for labels, series in self._series.items():
            series.add_to(family, labels)
        return [family]

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._documentation, labels=self._labelnames)

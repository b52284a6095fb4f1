"""Provides histograms of durations that cost little, for the hot path.

prometheus_client's histograms take three times as long, since they lock and search linearly; a
query observes twenty durations. All histograms have the same buckets, so that Prometheus can sum
them when it stores them as native histograms with custom buckets.
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
    """Counts the durations of one set of labels."""

    __slots__ = ("_counts", "_exemplars", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * len(_LIMITS)
        self._sum = 0.0
        self._exemplars: dict[int, Exemplar] = {}

    def observe(self, seconds: float, trace_id: str = "") -> None:
        """Count a duration, in the event loop's thread only.

        Args:
            seconds: the duration.
            trace_id: the trace that the exemplar names; empty for none.
        """
        bucket = bisect_left(DURATION_BUCKETS, seconds)
        self._counts[bucket] += 1
        self._sum += seconds
        if trace_id:
            self._exemplars[bucket] = Exemplar({"trace_id": trace_id}, seconds, time.time())

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Add this series to a metric family that is collected."""
        buckets, below = [], 0
        for bucket, limit in enumerate(_LIMITS):
            below += self._counts[bucket]
            exemplar = self._exemplars.get(bucket)
            buckets.append((limit, below) if exemplar is None else (limit, below, exemplar))
        family.add_metric(labels, buckets, self._sum)


class Durations(Collector):
    """Collects a histogram with labels, the last of which may be a stage."""

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labelnames = tuple(labels)
        self._series: dict[tuple[str, ...], Series] = {}
        registry.register(self)

    def of(self, *labels: str) -> Series:
        """Return the series of these labels."""
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = Series()
        return series

    def observe_stages(
        self, seconds: Mapping[str, float], *labels: str, trace_id: str = ""
    ) -> None:
        """Count a duration for each stage; the stage is the last label, after `labels`."""
        for stage, spent in seconds.items():
            self.of(*labels, stage).observe(spent, trace_id)

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """Return the metric family without values."""
        return [self._family()]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Return the metric family with every series."""
        family = self._family()
        for labels, series in self._series.items():
            series.add_to(family, labels)
        return [family]

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._documentation, labels=self._labelnames)

"""Parses Prometheus metrics, and computes differences, sums and quantiles of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]
"""The labels of one sample, by name and value."""

Wanted = str | Collection[str]
"""The required value of a label, or several allowed values."""

_RISING: Final = frozenset({"counter", "histogram", "summary"})


@dataclass(frozen=True, slots=True)
class Histogram:
    """Holds the observations of a histogram.

    Attributes:
        cumulative: by upper limit, the number of observations up to it.
        sum: of all observations.
    """

    cumulative: Mapping[float, float] = field(default_factory=dict)
    sum: float = 0.0

    @property
    def count(self) -> float:
        """The number of observations."""
        return self.cumulative.get(math.inf, 0.0)

    @property
    def mean(self) -> float:
        """The mean; NaN without observations."""
        return self.sum / self.count if self.count else math.nan

    def quantile(self, share: float) -> float:
        """Estimate a quantile as Prometheus does; NaN without observations.

        A quantile beyond the largest finite limit is that limit.
        """
        if not self.count:
            return math.nan
        rank, lower, below = share * self.count, 0.0, 0.0
        for limit, count in sorted(self.cumulative.items()):
            if count >= rank and count > below:
                if limit == math.inf:
                    return lower
                return lower + (limit - lower) * (rank - below) / (count - below)
            lower, below = limit, count
        return lower


@dataclass(frozen=True, slots=True)
class Samples:
    """Holds the values of metrics.

    Attributes:
        values: by sample name and labels.
        rising: the names of the samples that only rise while a process runs.
    """

    values: Mapping[str, Mapping[Labels, float]] = field(default_factory=dict)
    rising: frozenset[str] = frozenset()

    @classmethod
    def of(cls, families: Iterable[Metric]) -> Samples:
        """Collect the samples of metric families, such as those of a registry."""
        values: dict[str, dict[Labels, float]] = {}
        rising = set()
        for family in families:
            for sample in family.samples:
                values.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
                if family.type in _RISING and not sample.name.endswith("_created"):
                    rising.add(sample.name)
        return cls(values, frozenset(rising))

    @classmethod
    def parsed(cls, text: str) -> Samples:
        """Parse the text of /metrics. Raises ValueError for any other text."""
        return cls.of(text_string_to_metric_families(text))

    def restarted_since(self, before: Samples) -> bool:
        """Return whether the process was restarted: a value fell that can only rise."""
        return any(
            self.values.get(name, {}).get(labels, 0.0) < value
            for name in before.rising
            for labels, value in before.values[name].items()
        )

    def since(self, before: Samples) -> Samples:
        """Return the rise of each counter, from 0 after a restart; gauges keep their value."""
        if self.restarted_since(before):
            return self
        return Samples(
            {name: self._rise(name, before) for name in self.values},
            self.rising,
        )

    def one(self, name: str) -> float | None:
        """Return the value of the first sample of that name; None where there is none."""
        return next(iter(self.values.get(name, {}).values()), None)

    def labels(self, name: str) -> Iterator[tuple[Mapping[str, str], float]]:
        """Yield the labels and the value of every sample of that name."""
        for labels, value in self.values.get(name, {}).items():
            yield dict(labels), value

    def total(self, name: str, **wanted: Wanted) -> float:
        """Return the sum of the samples with these labels."""
        return sum(value for labels, value in self.labels(name) if _fits(labels, wanted))

    def by(self, label: str, name: str, **wanted: Wanted) -> dict[str, float]:
        """Return the sums of the samples with these labels, by the value of another label."""
        sums: dict[str, float] = defaultdict(float)
        for labels, value in self.labels(name):
            if _fits(labels, wanted):
                sums[labels[label]] += value
        return dict(sums)

    def histogram(self, name: str, **wanted: Wanted) -> Histogram:
        """Return the samples with these labels as one histogram."""
        limits = self.by("le", f"{name}_bucket", **wanted)
        cumulative = {float(limit): count for limit, count in limits.items()}
        return Histogram(cumulative, self.total(f"{name}_sum", **wanted))

    def _rise(self, name: str, before: Samples) -> Mapping[Labels, float]:
        values = self.values[name]
        if name not in self.rising:
            return values
        then = before.values.get(name, {})
        return {labels: value - then.get(labels, 0.0) for labels, value in values.items()}


def added(several: Iterable[Samples]) -> Samples:
    """Add up the counters of several processes; gauges are left out."""
    values: dict[str, dict[Labels, float]] = {}
    rising: set[str] = set()
    for samples in several:
        rising |= samples.rising
        for name in samples.rising:
            sums = values.setdefault(name, {})
            for labels, value in samples.values[name].items():
                sums[labels] = sums.get(labels, 0.0) + value
    return Samples(values, frozenset(rising))


def _fits(labels: Mapping[str, str], wanted: Mapping[str, Wanted]) -> bool:
    return all(
        labels.get(name) == value if isinstance(value, str) else labels.get(name) in value
        for name, value in wanted.items()
    )

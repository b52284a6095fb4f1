"""Holds all results of a call, and converts them to JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from services.bench.capacity import Capacity, Step
from services.bench.facts import Facts
from services.bench.load.meter import Measured
from services.bench.load.scrape import Batches
from services.bench.run import Run
from services.bench.sizing import Advice

FORMAT: Final = 1
PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)


@dataclass(frozen=True, slots=True)
class Results:
    """Holds the runs in their order, with those of the search for capacity."""

    facts: Facts
    measured: Sequence[Measured]
    capacity: Capacity | None = None
    advice: Sequence[Advice] = ()

    def to_json(self) -> Mapping[str, Any]:
        """Return the results as JSON values: seconds, null for unknown values."""
        return {
            "format": FORMAT,
            "facts": self.facts.to_json(),
            "runs": [of_measured(one) for one in self.measured],
            "capacity": _of_capacity(self.capacity),
            "advice": [asdict(one) for one in self.advice],
        }


def of_measured(measured: Measured) -> Mapping[str, Any]:
    """Return the figures of a run as JSON values."""
    run, spent = measured.run, measured.spent
    return {
        "load": run.name,
        "concurrency": run.concurrency,
        "rate": run.rate,
        "seconds": run.seconds,
        "requests": len(run.samples),
        "goodput": run.goodput,
        "error_share": run.error_share,
        "latency_seconds": _latencies(run),
        "refusal_p99_seconds": _number(run.refusal_percentile(99)),
        "by_code": run.by_code,
        "stage_median_seconds": run.stage_medians(),
        "generator": {
            "cpu_seconds_per_request": run.client_cpu_seconds_per_request,
            "behind_seconds": run.behind_seconds,
            "full_seconds": run.full_seconds,
        },
        "cpu_seconds_per_image": measured.cpu_seconds_per_image,
        "batches": _of_batches(spent.batches) if spent is not None else None,
    }


def _latencies(run: Run) -> Mapping[str, float | None]:
    found = {f"p{percent:g}": _number(run.percentile(percent)) for percent in PERCENTILES}
    return {**found, "max": _number(run.percentile(100))}


def _of_batches(batches: Batches) -> Mapping[str, Any]:
    return {
        "count": batches.count,
        "mean_images": _number(batches.mean_images),
        "by_limit": {f"{limit:g}": count for limit, count in sorted(batches.by_limit.items())},
    }


def _of_capacity(capacity: Capacity | None) -> Mapping[str, Any] | None:
    if capacity is None:
        return None
    return {
        "goal": asdict(capacity.goal),
        "ceiling": capacity.ceiling,
        "rate": capacity.rate,
        "steps": [_of_step(one) for one in capacity.steps],
    }


def _of_step(step: Step) -> Mapping[str, Any]:
    return {
        "rate": step.rate,
        "requests": len(step.measured.run.samples),
        "p99_seconds": _number(step.measured.run.p99),
        "fault": step.fault,
    }


def _number(value: float) -> float | None:
    """Replace NaN, which JSON lacks, by None."""
    return None if math.isnan(value) else value

"""Holds the samples of a run, one for each request, and computes its figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

SERVED: Final = "200"
_REFUSED: Final = ("503", "429")

Kind = Literal["served", "refused", "failed"]

Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sample:
    """Holds the measurement of a request.

    Attributes:
        at_seconds: when it was due, from the run's start.
        latency_seconds: until its answer or failure.
        code: the status and the problem's code.
        stages: seconds by name.
    """

    at_seconds: float
    latency_seconds: float
    code: str
    stages: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """Holds the samples of a load, without those of the warm-up.

    Attributes:
        seconds: the measured time.
        samples: of the requests.
        client_cpu_seconds: CPU seconds of the generator.
        concurrency: the number of clients of a closed loop; None for an open loop.
        rate: requests per second of an open loop; None for a closed loop.
        behind_seconds: by how much the generator was late with a request, at most.
        full_seconds: how long no connection was free for a request that was due.
    """

    seconds: float
    samples: Sequence[Sample]
    client_cpu_seconds: float
    concurrency: int | None = None
    rate: float | None = None
    behind_seconds: float = 0.0
    full_seconds: float = 0.0

    @property
    def name(self) -> str:
        """The name of the load, for tables."""
        if self.concurrency is not None:
            return clients(self.concurrency)
        return f"{self.rate:g}/s"

    @property
    def started_seconds(self) -> Seconds:
        """When each request began, or was due, from the run's start."""
        return np.array([one.at_seconds for one in self.samples])

    @property
    def latency_seconds(self) -> Seconds:
        """Each request's latency, whatever its code."""
        return np.array([one.latency_seconds for one in self.samples])

    @property
    def codes(self) -> Sequence[str]:
        """Each request's code."""
        return [one.code for one in self.samples]

    @property
    def served(self) -> Seconds:
        """Latencies of the requests that were answered."""
        return self.latencies_of(SERVED)

    def latencies_of(self, code: str) -> Seconds:
        """Latencies of the requests with that code."""
        return np.array([one.latency_seconds for one in self.samples if one.code == code])

    @property
    def refused(self) -> Seconds:
        """Latencies of the requests that were answered with 503 or 429."""
        return np.array(
            [one.latency_seconds for one in self.samples if kind_of(one.code) == "refused"]
        )

    @property
    def goodput(self) -> float:
        """Answered requests a second."""
        return len(self.served) / self.seconds

    @property
    def by_code(self) -> Mapping[str, int]:
        """The number of requests by status and problem code, such as `503 overloaded`."""
        return dict(Counter(one.code for one in self.samples).most_common())

    @property
    def error_share(self) -> float:
        """The share of unserved requests; 1 without requests."""
        if not self.samples:
            return 1.0
        return sum(one.code != SERVED for one in self.samples) / len(self.samples)

    @property
    def client_cpu_seconds_per_request(self) -> float:
        """The generator's CPU seconds for a request."""
        return self.client_cpu_seconds / max(1, len(self.samples))

    def percentile(self, percent: float) -> float:
        """Return a percentile of the served latencies in seconds; NaN without any."""
        return percentile(self.served, percent)

    def refusal_percentile(self, percent: float) -> float:
        """Return a percentile of the refusals' latencies in seconds; NaN without any."""
        return percentile(self.refused, percent)

    @property
    def p50(self) -> float:
        """The median of the served latencies, in seconds."""
        return self.percentile(50)

    @property
    def p99(self) -> float:
        """The 99th percentile of the served latencies, in seconds."""
        return self.percentile(99)

    def stage_medians(self) -> Mapping[str, float]:
        """Return the median seconds of each stage in the answers, in their order."""
        by_stage: dict[str, list[float]] = {}
        for one in self.samples:
            for stage, seconds in one.stages.items():
                by_stage.setdefault(stage, []).append(seconds)
        return {stage: float(np.median(seconds)) for stage, seconds in by_stage.items()}


def clients(count: int) -> str:
    """Return the name of a closed loop, such as `8 clients`."""
    return f"{count} client{'s' if count != 1 else ''}"


def kind_of(code: str) -> Kind:
    """Return the kind of a code: served, refused (may be retried) or failed."""
    if code == SERVED:
        return "served"
    return "refused" if code.startswith(_REFUSED) else "failed"


def percentile(latencies: Seconds, percent: float) -> float:
    """Return a percentile; NaN without latencies."""
    return float(np.percentile(latencies, percent)) if len(latencies) else float("nan")

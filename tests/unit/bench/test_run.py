"""The figures of a run equal those counted by hand."""

from __future__ import annotations

import math

import pytest

from services.bench.run import Run, Sample

RUN = Run(
    seconds=2.0,
    samples=[
        *(Sample(0.1 * number, 0.010 * (number + 1), "200") for number in range(5)),
        Sample(0.5, 0.001, "503 overloaded"),
        Sample(0.6, 0.003, "429"),
        Sample(0.7, 10.0, "timed out"),
    ],
    client_cpu_seconds=0.004,
    rate=4.0,
)  # fmt: skip


def test_only_what_was_served_counts_as_throughput_and_latency() -> None:
    """Five of eight were served, in 10 to 50 ms; refusals and time-outs are excluded."""
    assert RUN.goodput == 2.5
    assert RUN.p50 == pytest.approx(0.030)
    assert RUN.percentile(100) == pytest.approx(0.050)
    assert RUN.percentile(0) == pytest.approx(0.010)
    assert RUN.error_share == pytest.approx(3 / 8)


def test_refusals_are_answers_with_429_and_503() -> None:
    """Answers 503 and 429 count as refusals, a time-out does not."""
    assert RUN.refusal_percentile(100) == pytest.approx(0.003)
    assert len(RUN.refused) == 2


def test_codes_are_counted_most_first() -> None:
    """Every request belongs to exactly one count, and the highest count comes first."""
    assert RUN.by_code == {"200": 5, "503 overloaded": 1, "429": 1, "timed out": 1}
    assert next(iter(RUN.by_code)) == "200"
    assert len(RUN.codes) == len(RUN.started_seconds) == len(RUN.latency_seconds) == 8


def test_the_generators_own_cost_is_for_each_request() -> None:
    """The client's 4 ms are divided by eight requests."""
    assert RUN.client_cpu_seconds_per_request == pytest.approx(0.0005)


def test_a_run_that_served_nothing_has_no_latency() -> None:
    """Latencies of an empty run are NaN, not zero; its error share is 1."""
    empty = Run(seconds=1.0, samples=[], client_cpu_seconds=0.0, concurrency=1)
    assert math.isnan(empty.p99)
    assert math.isnan(empty.refusal_percentile(99))
    assert empty.goodput == 0
    assert empty.error_share == 1


@pytest.mark.parametrize(
    ("load", "name"),
    [
        ({"concurrency": 1}, "1 client"),
        ({"concurrency": 32}, "32 clients"),
        ({"rate": 2.5}, "2.5/s"),
    ],
)
def test_a_run_is_named_for_its_load(load: dict[str, float], name: str) -> None:
    """The name is the number of clients or the rate, as in tables."""
    assert Run(1.0, [], 0.0, **load).name == name  # type: ignore[arg-type]

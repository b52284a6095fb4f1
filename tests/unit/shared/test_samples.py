"""Samples compute the rise between two scrapes of a process, and quantiles of histograms."""

from __future__ import annotations

import math

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from services.shared.telemetry import samples
from services.shared.telemetry.samples import Samples

BEFORE = """\
# TYPE asked_total counter
asked_total{code="ok",route="/a"} 10
asked_total{code="bad",route="/a"} 2
asked_total{code="ok",route="/b"} 5
# TYPE held gauge
held 7
# TYPE took histogram
took_bucket{le="0.1"} 4
took_bucket{le="1.0"} 8
took_bucket{le="+Inf"} 8
took_sum 3.5
took_count 8
"""
AFTER = """\
# TYPE asked_total counter
asked_total{code="ok",route="/a"} 16
asked_total{code="bad",route="/a"} 2
asked_total{code="slow",route="/b"} 1
asked_total{code="ok",route="/b"} 5
# TYPE held gauge
held 3
# TYPE took histogram
took_bucket{le="0.1"} 6
took_bucket{le="1.0"} 12
took_bucket{le="+Inf"} 13
took_sum 10.5
took_count 13
"""


def test_counters_are_differences_and_gauges_are_current() -> None:
    """Counters and histograms are differences, new labels count from 0, gauges are unchanged."""
    risen = Samples.parsed(AFTER).since(Samples.parsed(BEFORE))
    assert risen.by("code", "asked_total") == {"ok": 6, "bad": 0, "slow": 1}
    assert risen.total("asked_total", route="/a") == 6
    assert risen.total("asked_total", route={"/a", "/b"}, code={"ok", "slow"}) == 7
    assert risen.one("held") == 3
    took = risen.histogram("took")
    assert took.count == 5
    assert took.mean == pytest.approx(1.4)


@pytest.mark.parametrize(
    "after",
    [
        AFTER.replace('code="ok",route="/a"} 16', 'code="ok",route="/a"} 9'),
        AFTER.replace('asked_total{code="ok",route="/b"} 5\n', ""),
        AFTER.replace("took_sum 10.5", "took_sum 0.5"),
    ],
    ids=["a counter fell", "a label is gone", "a sum fell"],
)
def test_a_restarted_process_rose_from_nothing(after: str) -> None:
    """A single counter that fell marks a restart; no number is then a difference or negative."""
    now, then = Samples.parsed(after), Samples.parsed(BEFORE)
    assert now.restarted_since(then)
    assert now.since(then) == now
    assert not Samples.parsed(AFTER).restarted_since(then)


def test_quantiles_are_those_of_prometheus() -> None:
    """Quantiles are linear within a bucket: of 2 up to 0.1, 2 up to 1 and 1 beyond."""
    took = Samples.parsed(AFTER).since(Samples.parsed(BEFORE)).histogram("took")
    assert took.cumulative == {0.1: 2, 1.0: 4, math.inf: 5}
    assert took.quantile(0.2) == pytest.approx(0.05)
    assert took.quantile(0.4) == pytest.approx(0.1)
    assert took.quantile(0.6) == pytest.approx(0.1 + 0.9 * 0.5)
    # Beyond the largest limit no value is known.
    assert took.quantile(0.99) == 1.0
    assert math.isnan(Samples().histogram("took").quantile(0.5))
    assert math.isnan(Samples().histogram("took").mean)


def test_an_empty_bucket_in_between_takes_no_part() -> None:
    """All values are above 0.1, so half of them are in the middle of the next bucket."""
    assert samples.Histogram({0.05: 0, 0.1: 0, 1.0: 4, math.inf: 4}).quantile(0.5) == 0.55


def test_processes_are_added_by_what_rises() -> None:
    """Counters of two replicas are added; gauges are not."""
    both = samples.added([Samples.parsed(BEFORE), Samples.parsed(AFTER)])
    assert both.by("route", "asked_total") == {"/a": 30, "/b": 11}
    assert both.histogram("took").count == 21
    assert both.one("held") is None


def test_a_registry_and_its_text_say_the_same() -> None:
    """Samples collected in the process equal samples scraped from it."""
    registry = CollectorRegistry()
    Counter("asked_total", "", ["code"], registry=registry).labels("ok").inc(3)
    Gauge("held", "", registry=registry).set(2)
    Histogram("took", "", buckets=(0.1, 1), registry=registry).observe(0.5)
    assert Samples.of(registry.collect()) == Samples.parsed(generate_latest(registry).decode())

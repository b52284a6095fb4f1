"""Our histogram exposes the same as the client library's, in both formats."""

from __future__ import annotations

import math

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from services.shared.telemetry.durations import Durations
from services.shared.telemetry.metrics import DURATION_BUCKETS

SECONDS = (0.0, 0.0001, 0.00011, 0.3, 1.0, 29.0, 31.0, 31.0)


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return an empty registry."""
    return CollectorRegistry()


def test_the_histogram_counts_as_the_librarys_does(registry: CollectorRegistry) -> None:
    """The same durations, including values on a bound, give the same text."""
    theirs = CollectorRegistry()
    library = Histogram("a_seconds", "Time.", ["stage"], buckets=DURATION_BUCKETS, registry=theirs)
    own = Durations("a_seconds", "Time.", ["stage"], registry)
    for seconds in SECONDS:
        library.labels("model").observe(seconds)
        own.of("model").observe(seconds)
    assert _samples(registry) == _samples(theirs)


def _samples(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, str(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_the_last_exemplar_of_a_bucket_is_exposed(registry: CollectorRegistry) -> None:
    """OpenMetrics shows the trace id beside the bucket of its duration."""
    durations = Durations("a_seconds", "Time.", ["stage"], registry)
    durations.observe_stages({"model": 0.2}, trace_id="first")
    durations.observe_stages({"model": 0.2}, trace_id="second")
    durations.observe_stages({"model": 0.2})
    exposed = openmetrics.generate_latest(registry).decode()  # type: ignore[no-untyped-call]
    (line,) = (line for line in exposed.splitlines() if "trace_id" in line)
    assert line.startswith(
        'a_seconds_bucket{le="0.25",stage="model"} 3.0 # {trace_id="second"} 0.2'
    )


def test_stages_come_after_the_other_labels(registry: CollectorRegistry) -> None:
    """Each stage of an item is a series of its own under the same labels."""
    durations = Durations("a_seconds", "Time.", ["intake", "stage"], registry)
    durations.observe_stages({"decode": 1.0, "model": 2.0}, "bulk")
    for stage, seconds in (("decode", 1.0), ("model", 2.0)):
        labels = {"intake": "bulk", "stage": stage}
        found = registry.get_sample_value("a_seconds_sum", labels)
        assert math.isclose(found or 0.0, seconds)

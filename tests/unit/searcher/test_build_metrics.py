"""The metrics of a build show its progress."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from services.searcher.build.build_metrics import BuildMetrics, MeasuredProgress
from services.searcher.progress import NoProgress


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return the registry of the metrics."""
    return CollectorRegistry()


@pytest.fixture
def progress(registry: CollectorRegistry) -> MeasuredProgress:
    """Return the progress that a build of `birds` reports to."""
    return MeasuredProgress("birds", BuildMetrics(registry), NoProgress())


def _value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    labels = {"collection": "birds", **labels}
    return registry.get_sample_value(f"simile_index_build_{name}", labels)


def test_a_stage_shows_how_far_it_is(
    registry: CollectorRegistry, progress: MeasuredProgress
) -> None:
    """The metrics show done, expected and failed units; a stage of unknown length expects none."""
    progress.begin("embedding", 10)
    progress.advance(3)
    progress.advance(2, failed=True)
    assert _value(registry, "done_units", stage="embedding") == 5
    assert _value(registry, "expected_units", stage="embedding") == 10
    assert _value(registry, "failed_images") == 2
    progress.begin("measuring", None, "plans")
    assert _value(registry, "expected_units", stage="measuring") is None
    assert _value(registry, "started_timestamp_seconds")


def test_one_stage_runs_at_a_time_and_none_after_the_end(
    registry: CollectorRegistry, progress: MeasuredProgress
) -> None:
    """A stage ends when the next begins, and the last stage when the build ends."""
    progress.begin("reading", None)
    progress.begin("embedding", 10)
    assert _value(registry, "stage", stage="reading") == 0
    assert _value(registry, "stage", stage="embedding") == 1
    progress.end()
    assert _value(registry, "stage", stage="embedding") == 0

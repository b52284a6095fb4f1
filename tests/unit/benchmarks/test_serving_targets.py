"""The verdicts of the serving benchmark follow from the figures alone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.benchmarks.serving import report
from tests.benchmarks.serving.measured import Measured
from tests.benchmarks.serving.systems import SIMILE
from tests.benchmarks.serving.targets import Target, targets


def _measured(goodput_at_32: float, goodput_at_64: float, p50_ms: float) -> Measured:
    points = {
        str(clients): {
            "goodput": goodput,
            "served": 100,
            "cpu_seconds": 1.4,
            "p50_ms": p50_ms,
            "p99_ms": 1.3 * p50_ms,
        }
        for clients, goodput in ((1, 60.0), (32, goodput_at_32), (64, goodput_at_64))
    }
    limit = {
        "cores": {"images_per_second": 100.0, "cpu_ms": 13.0},
        "one": {"images_per_second": 75.0, "p50_ms": 12.0},
    }
    turn: dict[str, Any] = {"round": "1", "limit": limit, "points": points, "ready_seconds": 4.0}
    return Measured({SIMILE: {"title": "Simile", "family": "simile", "turns": [turn]}})


def _named(found: Measured, beginning: str) -> Target:
    (target,) = (one for one in targets(found) if one.what.startswith(beginning))
    return target


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (Target("", ">=", 0.9, 0.9), True),
        (Target("", ">=", 0.9, 0.899), False),
        (Target("", "<=", 3.0, 3.0), True),
        (Target("", "<=", 3.0, 3.01), False),
        (Target("", "<=", 3.0, None), None),
    ],
)
def test_a_bound_itself_is_within(target: Target, met: bool | None) -> None:  # noqa: FBT001
    """A figure on the bound meets the target, and a missing figure has no verdict."""
    assert target.met is met


def test_the_worse_of_32_and_64_clients_counts() -> None:
    """The lower of the two efficiencies decides."""
    efficiency = "over RabbitMQ: images/s over the loop"
    assert _named(_measured(95, 85, 12), efficiency).value == pytest.approx(0.85)
    assert _named(_measured(91, 93, 12), efficiency).met is True


def test_latency_is_judged_by_one_image_without_a_server() -> None:
    """15.6 ms over 12 ms is the bound of 1.3."""
    p50 = "over RabbitMQ: p50 of one client"
    assert _named(_measured(90, 90, 15.5), p50).met is True
    assert _named(_measured(90, 90, 15.7), p50).met is False


def test_a_rival_that_was_not_measured_is_not_beaten() -> None:
    """A comparison without a figure has no verdict."""
    rivals = [one for one in targets(_measured(95, 95, 12)) if "LitServe" in one.what]
    assert [one.met for one in rivals] == [None, None]


def test_the_page_says_what_was_missed() -> None:
    """The page marks 4 seconds of start as missed, since the target is 3."""
    figures = {
        "systems": _measured(95, 95, 12).systems,
        "machine": {
            "cores": 2, "cpu": "x", "memory_bytes": 2**30, "python": "3", "libraries": {},
        },
        "versions": {},
    }  # fmt: skip
    page = report.written(figures)
    (ready,) = (line for line in page.splitlines() if line.startswith("| time until an embedder"))
    assert ready.endswith("| at most 3.00 s | 4.00 s | **missed** |")

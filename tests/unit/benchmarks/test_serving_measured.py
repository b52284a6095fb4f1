"""Medians and ratios of the serving benchmark equal figures worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.benchmarks.serving import measured
from tests.benchmarks.serving.measured import Measured


def _point(goodput: float, **more: Any) -> dict[str, Any]:
    served = round(goodput * 2)
    return {
        "goodput": goodput,
        "served": served,
        "cpu_seconds": served * 0.015,
        "front_cpu_seconds": served * 0.001,
        **more,
    }


def _turn(name: str, goodput: float, *, limit: float = 100.0, **more: Any) -> dict[str, Any]:
    return {
        "round": name,
        "limit": {
            "cores": {"images_per_second": limit, "cpu_ms": 13.0},
            "one": {"p50_ms": 12.0},
        },
        "points": {"32": _point(goodput), "64": _point(goodput)},
        **more,
    }


def _systems(**turns: list[dict[str, Any]]) -> Measured:
    return Measured({name: {"family": name, "turns": own} for name, own in turns.items()})


def test_efficiency_is_taken_against_the_limit_of_its_own_round() -> None:
    """A round on a slowed machine counts like the others."""
    found = _systems(a=[_turn("1", 90), _turn("2", 45, limit=50), _turn("3", 88)])
    assert found.efficiency("a", 32) == pytest.approx(0.9)


def test_overhead_is_what_an_image_costs_beyond_the_limit() -> None:
    """An image takes 15 ms, of which the loop without a server takes 13."""
    assert _systems(a=[_turn("1", 90)]).overhead_ms("a", 32) == pytest.approx(2.0)


def test_ratios_are_taken_within_rounds() -> None:
    """The result is the median of 2, 2 and 1.5, not the ratio of the medians, which is 1."""
    found = _systems(
        a=[_turn("1", 20), _turn("2", 40), _turn("3", 90)],
        b=[_turn("1", 10), _turn("2", 20), _turn("3", 60), _turn("4", 70), _turn("5", 80)],
    )
    assert found.over_best("a", ["b"], 32) == pytest.approx(2.0)


def test_rounds_that_two_systems_do_not_share_are_compared_by_medians() -> None:
    """A system that was measured later on its own can still be compared."""
    found = _systems(a=[_turn("1", 80)], b=[_turn("2", 40), _turn("3", 20), _turn("4", 60)])
    assert found.over_best("a", ["b"], 32) == pytest.approx(2.0)


def test_the_best_of_a_family_counts() -> None:
    """The comparison uses the fastest variant of a rival."""
    found = _systems(a=[_turn("1", 80)], b=[_turn("1", 20)], c=[_turn("1", 40)])
    assert found.over_best("a", ["b", "c"], 32) == pytest.approx(2.0)


def test_what_was_not_measured_is_none() -> None:
    """A missing system, point or overload has no figure."""
    found = _systems(a=[_turn("1", 80)])
    assert found.goodput("b", 32) is None
    assert found.goodput("a", 1) is None
    assert found.over_best("a", ["b"], 32) is None
    assert found.over_best("a", [], 32) is None
    assert found.median("a", measured.recovered) is None
    assert found.median("a", measured.refusal_cpu_share) is None


def test_a_refusal_costs_what_the_served_do_not_explain() -> None:
    """0.5 s less 200 images of 1 ms leave 0.3 s for 400 refusals; an image takes 15 ms in all."""
    overload = {"served": 200, "refused": 400, "front_cpu_seconds": 0.5, "goodput": 50.0}
    turn = _turn("1", 100, overload=overload)
    assert measured.refusal_cpu_share(turn) == pytest.approx(0.05)
    assert measured.overload_kept(turn) == pytest.approx(0.5)


def test_what_refuses_in_an_unknown_place_has_no_cost_of_a_refusal() -> None:
    """The processes of a rival are measured as a whole, so a refusal has no cost."""
    overload = {"served": 200, "refused": 400, "front_cpu_seconds": None, "goodput": 50.0}
    turn = _turn("1", 100, overload=overload)
    turn["points"]["64"]["front_cpu_seconds"] = None
    assert measured.refusal_cpu_share(turn) is None


def test_a_storm_is_held_against_64_clients() -> None:
    """The comparison is made where a storm was measured."""
    assert measured.storm_kept(_turn("1", 100, storm={"goodput": 90.0})) == pytest.approx(0.9)
    assert measured.storm_kept(_turn("1", 100)) is None


def test_what_is_neither_served_nor_refused_is_lost() -> None:
    """The server's 504 and the client's time-out both count as lost."""
    codes = {"200": 5, "503 overloaded": 3, "504 deadline_exceeded": 2, "timed out": 1}
    turn = _turn("1", 100, overload={"codes": codes, "served": 5, "refused": 3})
    assert measured.lost(turn) == 3

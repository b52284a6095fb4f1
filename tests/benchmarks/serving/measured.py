"""Computes medians and ratios over rounds; ratios are taken within a round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Turn = Mapping[str, Any]
Pick = Callable[[Turn], float | None]


@dataclass(frozen=True, slots=True)
class Measured:
    """The turns of each system by its name."""

    systems: Mapping[str, Mapping[str, Any]]

    def turns(self, name: str) -> Sequence[Turn]:
        """Return a system's turns; empty if it was not measured."""
        turns: Sequence[Turn] = self.systems.get(name, {"turns": ()})["turns"]
        return turns

    def of_family(self, family: str, variant: str = "") -> list[str]:
        """Return the measured systems of a family whose names contain that variant."""
        return [
            name
            for name, system in self.systems.items()
            if system["family"] == family and variant in name
        ]

    def median(self, name: str, pick: Pick) -> float | None:
        """Return the median over the turns that have the figure."""
        return middle(pick(turn) for turn in self.turns(name))

    def goodput(self, name: str, concurrency: int) -> float | None:
        """Return images per second."""
        return self.median(name, lambda turn: goodput(turn, concurrency))

    def latency_ms(self, name: str, concurrency: int, quantile: int) -> float | None:
        """Return the p50 or p99 of served images."""
        return self.median(name, lambda turn: of_point(turn, concurrency, f"p{quantile}_ms"))

    def efficiency(self, name: str, concurrency: int) -> float | None:
        """Return images per second over those of the loop without a server."""
        return self.median(name, lambda turn: efficiency(turn, concurrency))

    def overhead_ms(self, name: str, concurrency: int) -> float | None:
        """Return CPU time per image beyond that of the loop without a server."""
        return self.median(name, lambda turn: overhead_ms(turn, concurrency))

    def ratio(self, name: str, other: str, pick: Pick) -> float | None:
        """Return the figure over that of the other: the median over the rounds with both.

        Without a shared round: the ratio of the medians.
        """
        theirs = {turn["round"]: pick(turn) for turn in self.turns(other)}
        shared = [
            quotient(pick(turn), theirs[turn["round"]])
            for turn in self.turns(name)
            if turn["round"] in theirs
        ]
        if shared:
            return middle(shared)
        return quotient(self.median(name, pick), self.median(other, pick))

    def over_best(self, name: str, others: Sequence[str], concurrency: int) -> float | None:
        """Return images per second over those of the best of the others."""
        ratios = [
            self.ratio(name, other, lambda turn: goodput(turn, concurrency)) for other in others
        ]
        return least(ratios)


def of_point(turn: Turn, concurrency: int, field: str) -> float | None:
    """Return a figure of a point of a turn."""
    value = turn["points"].get(str(concurrency), {}).get(field)
    return None if value is None else float(value)


def goodput(turn: Turn, concurrency: int) -> float | None:
    """Return images per second."""
    return of_point(turn, concurrency, "goodput")


def efficiency(turn: Turn, concurrency: int) -> float | None:
    """Return images per second over those of the loop without a server, in that round."""
    return quotient(goodput(turn, concurrency), turn["limit"]["cores"]["images_per_second"])


def cpu_ms(turn: Turn, concurrency: int) -> float | None:
    """Return the CPU time of all its processes per served image."""
    seconds = of_point(turn, concurrency, "cpu_seconds")
    per_image = quotient(seconds, of_point(turn, concurrency, "served"))
    return None if per_image is None else 1000 * per_image


def overhead_ms(turn: Turn, concurrency: int) -> float | None:
    """Return CPU time per image beyond that of the loop without a server, in that round."""
    spent = cpu_ms(turn, concurrency)
    return None if spent is None else spent - float(turn["limit"]["cores"]["cpu_ms"])


def refusal_cpu_share(turn: Turn) -> float | None:
    """Return the cost of a refusal over that of an image; None if its front is unknown.

    The front's CPU time in overload, minus that of served images at 64 clients, is for refusals.
    """
    overload, image_ms = turn.get("overload"), cpu_ms(turn, 64)
    front = quotient(of_point(turn, 64, "front_cpu_seconds"), of_point(turn, 64, "served"))
    if not overload or not overload["refused"] or image_ms is None or front is None:
        return None
    rest = overload["front_cpu_seconds"] - front * overload["served"]
    return float(1000 * rest / overload["refused"] / image_ms)


def of_overload(field: str) -> Pick:
    """Return a function that picks a figure in overload."""

    def pick(turn: Turn) -> float | None:
        value = turn.get("overload", {}).get(field)
        return None if value is None else float(value)

    return pick


def overload_kept(turn: Turn) -> float | None:
    """Return images per second at 512 clients over those at 64."""
    return quotient(of_overload("goodput")(turn), goodput(turn, 64))


def storm_kept(turn: Turn) -> float | None:
    """Return images per second over those at 64, of 512 clients that retry at once when refused."""
    return quotient(turn.get("storm", {}).get("goodput"), goodput(turn, 64))


def recovered(turn: Turn) -> float | None:
    """Return images per second at 8 clients right after the overload over those right before."""
    if "afterwards" not in turn:
        return None
    return quotient(turn["afterwards"]["goodput"], turn["before"]["goodput"])


def lost(turn: Turn) -> float | None:
    """Return how many were neither served nor refused in overload."""
    overload = turn.get("overload")
    if not overload:
        return None
    return float(sum(overload["codes"].values()) - overload["served"] - overload["refused"])


def tail(turn: Turn, concurrency: int) -> float | None:
    """Return p99 over p50."""
    return quotient(of_point(turn, concurrency, "p99_ms"), of_point(turn, concurrency, "p50_ms"))


def over_one_image(turn: Turn) -> float | None:
    """Return the p50 of a single client over the p50 of an image in the loop without a server."""
    return quotient(of_point(turn, 1, "p50_ms"), turn["limit"]["one"]["p50_ms"])


def quotient(one: float | None, other: float | None) -> float | None:
    """Return the quotient; None if a value is missing or the divisor is 0."""
    return None if one is None or not other else one / other


def middle(values: Iterable[float | None]) -> float | None:
    """Return the median of the present values."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def least(values: Iterable[float | None]) -> float | None:
    """Return the smallest; None if a value is missing or there are none."""
    found = list(values)
    known = [value for value in found if value is not None]
    return min(known) if known and len(known) == len(found) else None

"""Judges the targets by the figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tests.benchmarks.serving import measured
from tests.benchmarks.serving.measured import Measured, least, middle
from tests.benchmarks.serving.systems import (
    FAMILIES,
    ONE_CORE,
    SIMILE,
    SIMILE_LOCAL,
    TWO_CORES,
)

BUSY: Final = (32, 64)
"""The concurrencies at which throughput is judged: by the lower of both."""

_GIVEN: Final = {
    "litserve": 1.2,
    "bentoml": 1.5,
    "ray": 2.0,
    "ray-haproxy": 2.0,
    "micro-batcher": 1.0,
}
_DOCUMENTED: Final = {"litserve": 2.0, "bentoml": 2.0, "ray": 2.0}


@dataclass(frozen=True, slots=True)
class Target:
    """A target. value: the figure, None without a measurement; in the unit of the bound."""

    what: str
    sense: Literal[">=", "<="]
    bound: float
    value: float | None
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """Return whether the target was met, None without a measurement."""
        if self.value is None:
            return None
        return self.value >= self.bound if self.sense == ">=" else self.value <= self.bound


def targets(found: Measured) -> list[Target]:
    """Return all targets in the order of the page."""
    return [
        *_efficiency(found),
        *_rivals(found),
        *_design_of_2018(found),
        *_latency(found),
        *_overload(found, SIMILE, "over RabbitMQ"),
        *_overload(found, SIMILE_LOCAL, "one process"),
        *_scaling(found),
    ]


def _efficiency(found: Measured) -> Iterator[Target]:
    for name, title, bound in (
        (SIMILE, "over RabbitMQ", 0.90),
        (SIMILE_LOCAL, "one process", 0.95),
    ):
        value = least(found.efficiency(name, concurrency) for concurrency in BUSY)
        yield Target(
            f"{title}: images/s over the loop without a server, the lower of 32 and 64 clients",
            ">=", bound, value,
        )  # fmt: skip
    overhead = found.overhead_ms(SIMILE, BUSY[0])
    yield Target("over RabbitMQ: CPU per image beyond that loop's", "<=", 1.8, overhead, "ms")


def _rivals(found: Measured) -> Iterator[Target]:
    for variant, title, bounds in (
        ("given", "given our runtime and decoder", _GIVEN),
        ("documented", "as documented", _DOCUMENTED),
    ):
        for family, bound in bounds.items():
            yield Target(
                f"over RabbitMQ: images/s over {FAMILIES[family]}, {title}",
                ">=", bound, over_family(found, SIMILE, family, variant),
            )  # fmt: skip
    yield Target(
        "one process: images/s over the micro-batcher, given our runtime and decoder",
        ">=", 1.0, over_family(found, SIMILE_LOCAL, "micro-batcher", "given"),
    )  # fmt: skip


def over_family(found: Measured, name: str, family: str, variant: str) -> float | None:
    """Return images per second over the best of a family, at the lower of 32 and 64 clients."""
    others = found.of_family(family, variant)
    return least(found.over_best(name, others, concurrency) for concurrency in BUSY)


def _design_of_2018(found: Measured) -> Iterator[Target]:
    others = found.of_family("2018")
    title = FAMILIES["2018"]
    throughput = least(found.over_best(SIMILE, others, concurrency) for concurrency in BUSY)
    yield Target(f"over RabbitMQ: images/s over {title}", ">=", 5.0, throughput)
    faster = least(_slower(found, other) for other in others)
    yield Target(f"over RabbitMQ: p50 of {title} over Simile's, one client", ">=", 15.0, faster)


def _slower(found: Measured, other: str) -> float | None:
    return found.ratio(other, SIMILE, lambda turn: measured.of_point(turn, 1, "p50_ms"))


def _latency(found: Measured) -> Iterator[Target]:
    for name, title in ((SIMILE, "over RabbitMQ"), (SIMILE_LOCAL, "one process")):
        value = found.median(name, measured.over_one_image)
        yield Target(f"{title}: p50 of one client over the time of an image", "<=", 1.3, value)
        value = found.median(name, lambda turn: measured.tail(turn, 32))
        yield Target(f"{title}: p99 over p50, 32 clients", "<=", 1.4, value)


def _overload(found: Measured, name: str, title: str) -> Iterator[Target]:
    def median(pick: measured.Pick) -> float | None:
        return found.median(name, pick)

    yield Target(
        f"{title}: images/s with 512 clients over those with 64",
        ">=", 0.95, median(measured.overload_kept),
    )  # fmt: skip
    p99 = median(measured.of_overload("p99_ms"))
    yield Target(f"{title}: p99 of served requests, 512 clients", "<=", 3000, p99, "ms")
    yield Target(
        f"{title}: time-outs and errors, 512 clients", "<=", 0,
        _most(found.turns(name)),
    )  # fmt: skip
    refusal = median(measured.of_overload("refusal_p99_ms"))
    yield Target(f"{title}: p99 of refusals, 512 clients", "<=", 100, refusal, "ms")
    share = median(measured.refusal_cpu_share)
    yield Target(f"{title}: CPU of a refusal over an image's", "<=", 0.05, share)
    yield Target(
        f"{title}: images/s with 8 clients right after, over before",
        ">=", 0.95, median(measured.recovered),
    )  # fmt: skip


def _most(turns: Sequence[measured.Turn]) -> float | None:
    """Return the maximum of losses over all turns: none is permitted in any."""
    losses = [loss for turn in turns if (loss := measured.lost(turn)) is not None]
    return max(losses) if losses else None


def _scaling(found: Measured) -> Iterator[Target]:
    value = middle(found.over_best(TWO_CORES, [ONE_CORE], concurrency) for concurrency in BUSY)
    yield Target(
        "images/s of two embedders, each with a core, over one with a core", ">=", 1.8, value
    )
    ready = found.median(SIMILE, lambda turn: turn["ready_seconds"])
    yield Target("time until an embedder with an export is ready", "<=", 3.0, ready, "s")

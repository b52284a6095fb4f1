"""Writes the section "Serving" of the page from the figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tests.benchmarks.results import Figures, described
from tests.benchmarks.serving import measured
from tests.benchmarks.serving.measured import Measured
from tests.benchmarks.serving.rounds import CONCURRENCIES, OVERLOAD
from tests.benchmarks.serving.systems import FAMILIES, SIMILE, SIMILE_LOCAL
from tests.benchmarks.serving.targets import Target, over_family, targets

_METHOD: Final = """\
This benchmark compares Simile with common ways to serve the same model: on the same machine, with
the same photographs, the same client on the same cores, and different bytes in every request. Every
system answers a POST of an image with its ten nearest neighbours. The systems take turns, in
rounds; figures are medians over the rounds.

*The limit* of the machine is a loop of decoding, model and search without a server, in a process
with one thread for each core, measured repeatedly during each round. *E* is a system's images/s
over those of the limit. *Overhead* is the system's CPU time per image (with broker and Redis,
without the client) minus that of the limit.

The alternatives search a plain Annoy file of the same vectors (10 trees). *Given* systems have
Simile's decoder and ONNX Runtime, a worker for each core with one thread of the model, and batches
of at most 8, as Simile. *Documented* systems decode with Pillow and run eager torch in batches of
at most 32 on one worker, as in their tutorials. Each server's own batching is on, and access logs
are off. Simile has its default logs, a deadline of 3 s, and no cache of embeddings. The design of
2018 is Flask under gunicorn, base64 of pixels in a Redis list, and a model process; both sides poll
every 250 ms.

This machine has no GPU: systems on GPUs were not measured."""


def written(figures: Figures) -> str:
    """Return the section in Markdown."""
    found = Measured(figures["systems"])
    return "\n".join(
        [
            "## Serving",
            "",
            _METHOD,
            "",
            f"Measured on {described(figures['machine'])}; {_versions(figures['versions'])}.",
            "",
            *_aims(targets(found)),
            "",
            "![Throughput by concurrency](images/benchmark-serving.png)",
            "",
            *_throughput(found),
            "",
            "![Latency by concurrency](images/benchmark-latency.png)",
            "",
            *_latency(found),
            "",
            *_ratios(found),
            "",
            *_overload(found),
            "",
            *_limits(found),
        ]
    )


def _versions(versions: Figures) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _aims(judged: Sequence[Target]) -> Iterator[str]:
    met = sum(target.met is True for target in judged)
    yield "### Targets"
    yield ""
    yield f"Simile meets {met} of {len(judged)} targets."
    yield ""
    yield "| | target | measured | |"
    yield "|---|---|---|---|"
    for target in judged:
        sense = "at least" if target.sense == ">=" else "at most"
        yield (
            f"| {target.what} | {sense} {_with_unit(target.bound, target.unit)} "
            f"| {_with_unit(target.value, target.unit)} | {_verdict(target)} |"
        )


def _with_unit(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    size = abs(value)
    digits = 0 if size >= 100 or size == 0 else 1 if size >= 10 else 2 if size >= 0.1 else 3
    return f"{value:,.{digits}f} {unit}".strip()


def _verdict(target: Target) -> str:
    return {True: "met", False: "**missed**", None: "not measured"}[target.met]


def _throughput(found: Measured) -> Iterator[str]:
    columns = " | ".join(f"{count}" for count in CONCURRENCIES)
    yield "### Throughput"
    yield ""
    yield "Images per second by the number of clients; E and overhead with 32 clients."
    yield ""
    yield f"| | {columns} | E | overhead, ms |"
    yield "|---|" + "---|" * (len(CONCURRENCIES) + 2)
    for name, system in found.systems.items():
        rates = " | ".join(_number(found.goodput(name, count)) for count in CONCURRENCIES)
        # The limit was measured with this runtime only.
        fair = "documented" not in name and system["family"] != "2018"
        share = _number(found.efficiency(name, 32), 2) if fair else "-"
        overhead = _number(found.overhead_ms(name, 32), 1) if fair else "-"
        yield f"| {_title(name, system)} | {rates} | {share} | {overhead} |"


def _latency(found: Measured) -> Iterator[str]:
    columns = " | ".join(f"{count}" for count in CONCURRENCIES)
    yield "### Latency"
    yield ""
    yield "p50 / p99 in ms by the number of clients."
    yield ""
    yield f"| | {columns} |"
    yield "|---|" + "---|" * len(CONCURRENCIES)
    for name, system in found.systems.items():
        cells = " | ".join(
            f"{_number(found.latency_ms(name, count, 50), 0)} / "
            f"{_number(found.latency_ms(name, count, 99), 0)}"
            for count in CONCURRENCIES
        )
        yield f"| {_title(name, system)} | {cells} |"


def _ratios(found: Measured) -> Iterator[str]:
    yield "### Simile over the others"
    yield ""
    yield "Images per second of Simile over those of the best of each, at the lower of 32 and 64"
    yield "clients."
    yield ""
    yield "| | over RabbitMQ | one process |"
    yield "|---|---|---|"
    for family, title in FAMILIES.items():
        for variant in ("",) if family == "2018" else ("given", "documented"):
            if family == "simile" or not found.of_family(family, variant):
                continue
            cells = " | ".join(
                _number(over_family(found, name, family, variant), 2)
                for name in (SIMILE, SIMILE_LOCAL)
            )
            yield f"| {title}{', ' if variant else ''}{variant} | {cells} |"


def _overload(found: Measured) -> Iterator[str]:
    yield f"### Overload: {OVERLOAD} clients"
    yield ""
    yield (
        "Refused clients wait for Retry-After; a client times out after 30 s. A refusal's CPU is "
        "that of the thread that receives requests, without its CPU for served requests. *In a "
        "storm* refused clients retry at once."
    )
    yield ""
    yield (
        "| | images/s | over those with 64 | p99 of served requests, ms | refused a second "
        "| p99 of refusals, ms | CPU of a refusal over an image's | lost | after over before "
        "| images/s in a storm | over those with 64 |"
    )
    yield "|---|" + "---|" * 10
    for name, system in found.systems.items():
        if not any("overload" in turn for turn in found.turns(name)):
            continue
        cells = (
            _number(found.median(name, measured.of_overload("goodput"))),
            _number(found.median(name, measured.overload_kept), 2),
            _number(found.median(name, measured.of_overload("p99_ms")), 0),
            _number(found.median(name, _refused_per_second)),
            _number(found.median(name, measured.of_overload("refusal_p99_ms")), 0),
            _number(found.median(name, measured.refusal_cpu_share), 3),
            _number(found.median(name, measured.lost), 0),
            _number(found.median(name, measured.recovered), 2),
            _number(found.median(name, _stormed)),
            _number(found.median(name, measured.storm_kept), 2),
        )
        yield f"| {_title(name, system)} | {' | '.join(cells)} |"


def _stormed(turn: measured.Turn) -> float | None:
    storm: Any = turn.get("storm")
    return storm["goodput"] if storm else None


def _refused_per_second(turn: measured.Turn) -> float | None:
    overload: Any = turn.get("overload")
    return overload["refused"] / overload["seconds"] if overload else None


def _limits(found: Measured) -> Iterator[str]:
    limits = {
        (turn["round"], turn["limit"]["cores"]["images_per_second"]): turn["limit"]
        for name in found.systems
        for turn in found.turns(name)
    }
    rates = [float(one["cores"]["images_per_second"]) for one in limits.values()]
    yield (
        f"The limit, measured {len(rates)} times: {_median(limits, 'cores', 'images_per_second')} "
        f"images/s (from {min(rates):.1f} to {max(rates):.1f}) at "
        f"{_median(limits, 'cores', 'cpu_ms')} ms CPU per image; a single process "
        f"{_median(limits, 'one', 'images_per_second')} images/s, "
        f"{_median(limits, 'one', 'p50_ms')} ms for an image."
    )


def _median(limits: Figures | dict[Any, Any], processes: str, field: str) -> str:
    return _number(measured.middle(one[processes][field] for one in limits.values()))


def _title(name: str, system: Mapping[str, Any]) -> str:
    variant = next((word for word in ("given", "documented") if word in name), "")
    return f"{system['title']}{f', *{variant}*' if variant else ''}"


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"

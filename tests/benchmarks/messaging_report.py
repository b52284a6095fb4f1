"""Writes the section "Messaging" of the page from the figures."""

from __future__ import annotations

from collections.abc import Iterator

from tests.benchmarks.results import Figures, described

_MAX_CPU_MS = 0.9
_MAX_P50_MS = 3.0
_OF = ("client", "upload", "broker", "embedder", "searcher")


def written(figures: Figures) -> str:
    """Return the section in Markdown."""
    return "\n".join(_lines(figures))


def _lines(figures: Figures) -> Iterator[str]:
    yield "## Messaging"
    yield ""
    yield "The cost of a query without computation: the services run as processes over RabbitMQ,"
    yield "with"
    yield "a model that computes nothing, an index of 100 vectors, and images of"
    yield f"{figures['image_bytes']:,} bytes. CPU is that of all processes, including client and"
    yield f"broker; idle they use {figures['idle_cores']:.3f} of a core. Figures are medians of"
    yield "rounds."
    yield ""
    yield f"Measured on {described(figures['machine'])}."
    for way, title in (
        ("inbox", "From inbox to inbox: three hops, no HTTP"),
        ("http", "With the HTTP front and the load generator"),
    ):
        yield ""
        yield f"### {title}"
        yield ""
        yield (
            f"| concurrent | queries/s | p50, ms | p99, ms | CPU ms per query | {' | '.join(_OF)} |"
        )
        yield f"|---|---|---|---|---|{'---|' * len(_OF)}"
        for concurrency, point in figures[way].items():
            yield (
                f"| {concurrency} | {point['queries_per_second']:,.0f} | {point['p50_ms']:.2f} | "
                f"{point['p99_ms']:.2f} | {point['cpu_ms']:.2f} | {_by_process(point)} |"
            )
    cpu, p50 = figures["inbox"]["8"]["cpu_ms"], figures["inbox"]["1"]["p50_ms"]
    yield ""
    yield "| without HTTP | target | measured | |"
    yield "|---|---|---|---|"
    yield _aim("CPU per query, 8 concurrent", cpu, _MAX_CPU_MS)
    yield _aim("p50, 1 concurrent", p50, _MAX_P50_MS)


def _by_process(point: Figures) -> str:
    return " | ".join(f"{point[f'{name}_cpu_ms']:.2f}" for name in _OF)


def _aim(what: str, value: float, most: float) -> str:
    return f"| {what} | at most {most:g} ms | {value:.2f} ms | {_met(value, most)} |"


def _met(value: float, most: float) -> str:
    return "met" if value <= most else "missed"

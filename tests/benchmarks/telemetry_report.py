"""Writes the section "Telemetry" of the page from the figures."""

from __future__ import annotations

from collections.abc import Iterator

from tests.benchmarks.results import Figures, described

_MAX_SHARE = 0.02
_OF = ("upload", "broker", "embedder", "searcher")
_WAYS = {
    "stub": "a model that computes nothing",
    "model": "the model that ships, decoding included",
}


def written(figures: Figures) -> str:
    """Return the section in Markdown."""
    return "\n".join(_lines(figures))


def share(figures: Figures, way: str) -> float:
    """Return the additional CPU of a query with metrics and logs, as a fraction."""
    found: float = figures[way]["more_ms"] / figures[way]["off"]["all"]
    return found


def _lines(figures: Figures) -> Iterator[str]:
    yield "## Telemetry"
    yield ""
    yield "The cost of metrics and logs per query: the services run as processes over RabbitMQ,"
    yield "with"
    yield f"logs at `info` as JSON, images of {figures['image_bytes']:,} bytes, and"
    yield f"{figures['at_once']} concurrent queries. Both are switched off and on in the same"
    yield "processes, in turns of two seconds. The table shows the median difference of the pairs"
    yield "of"
    yield "turns, with quartiles. CPU is that of services and broker."
    yield ""
    yield f"Measured on {described(figures['machine'])}."
    yield ""
    yield f"| CPU ms per query | off | on | {' | '.join(f'{name}, on' for name in _OF)} | more |"
    yield f"|---|---|---|{'---|' * len(_OF)}---|"
    for way, title in _WAYS.items():
        off, on = figures[way]["off"], figures[way]["on"]
        by_process = " | ".join(f"{on[name]:.3f}" for name in _OF)
        low, _, high = figures[way]["more_spread_ms"]
        yield (
            f"| {title} | {off['all']:.3f} | {on['all']:.3f} | {by_process} | "
            f"{figures[way]['more_ms']:.3f} ({low:.3f} to {high:.3f}) |"
        )
    yield ""
    yield "| additional CPU per query | target | measured | |"
    yield "|---|---|---|---|"
    for way, title in _WAYS.items():
        found = share(figures, way)
        met = "met" if found <= _MAX_SHARE else "missed"
        yield f"| with {title} | at most {_MAX_SHARE:.0%} | {found:.1%} | {met} |"
    yield ""
    yield "With tracing off, the default, its calls take"
    yield f"{figures['tracing_off_us']:.1f} microseconds per query in all services together."

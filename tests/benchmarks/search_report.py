"""Writes the section "Search" of the page from the figures: tables, ratios, losses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tests.benchmarks.engines import ENGINES
from tests.benchmarks.measuring import TARGETS
from tests.benchmarks.results import Figures, described

_OTHERS: Final = ("annoy", "hnswlib", "faiss", "exact")
_EFFORTS: Final = {"annoy": "search_k", "hnswlib": "ef", "faiss": "efSearch"}
_TOGETHER: Final = "queries_per_second"
_ALONE: Final = "one_query_ms_p50"

_METHOD: Final = """\
Recall@10 is relative to exact search; ties count as correct. Searches use one thread, except in the
column for two threads; builds use every core, as each library does by default. "Batches of 32" are
what a searcher gets under load; Annoy has no batches, so the benchmark calls it in a loop. Speeds
are medians over rounds in which every engine has its turn, so that the ratios hold on a shared
machine. Build times are not interleaved: on a busy machine they are longer. No index contains the
queries. hnswlib and faiss have 16 links and an ef_construction of 200. These two, and plain Annoy,
are also tuned to the smallest effort that reaches the recall on exactly these queries, which
favours them: Simile tunes at its build, on other vectors.

Sets: *photographs* are embedded by EfficientNet-Lite0, and every tenth is a query. *easy* vectors
are clusters in 24 dimensions, mapped linearly, with a little noise. *hard* vectors look like a
network's layer: 96 dimensions of falling strength, outputs of very different scale, and a threshold
that sets two thirds of them to zero."""


def written(sets: Mapping[str, Figures], growth: Figures | None) -> str:
    """Return the section in Markdown. sets: by name, in the order of the page."""
    lines = ["## Search", "", _METHOD, ""]
    machines = {described(figures["machine"]) for figures in sets.values()}
    if growth:
        machines.add(described(growth["machine"]))
    lines += [f"Measured on {machine}." for machine in sorted(machines)]
    if sets:
        lines += [
            "",
            *_ratios(sets),
            "",
            "![Recall against speed](images/benchmark-search.png)",
            "",
        ]
        for figures in sets.values():
            lines += [*_speeds(figures), ""]
        lines += [*_builds(sets), "", *_worse(sets)]
    if growth:
        lines += ["", *_growth(growth["rows"])]
    return "\n".join(lines)


def _ratios(sets: Mapping[str, Figures]) -> Iterator[str]:
    yield "### Simile over others"
    yield ""
    yield "Queries per second of Simile over those of the engine, in batches of 32 / one by one, on"
    yield "one thread. The engines have the smallest effort that reaches the recall; Annoy also has"
    yield "its defaults."
    yield ""
    others = ("Annoy, defaults", *(ENGINES[name].title for name in _OTHERS))
    yield f"| set | target recall | {' | '.join(others)} |"
    yield f"|---|---|{'---|' * len(others)}"
    for figures in sets.values():
        for target in TARGETS:
            ours = _ours(figures, target)
            if ours is None:
                continue
            untuned = _point(figures, "annoy", "default")
            cells = [_over(ours, untuned, show_recall=True)]
            cells += [_over(ours, _other(figures, name, target)) for name in _OTHERS]
            yield f"| {figures['title']} | {target:g} | {' | '.join(cells)} |"


def _speeds(figures: Figures) -> Iterator[str]:
    yield f"### {figures['title']}"
    yield ""
    yield f"Measured {figures['measured']}."
    yield ""
    batched = "queries/s, batches of 32"
    yield f"| engine | recall@10 | {batched} | two threads | one query, ms p50 | p99 |"
    yield "|---|---|---|---|---|---|"
    for engine, table in figures["engines"].items():
        for point in table["points"]:
            if not point["why"]:
                continue
            p99 = point["one_query_ms_p99"]
            yield (
                f"| {_named(engine, table, point)} | {point['recall']:.4f} "
                f"| {point[_TOGETHER]:,.0f} | {point['queries_per_second_two_threads']:,.0f} "
                f"| {point[_ALONE]:.2f} | {'-' if p99 is None else f'{p99:.2f}'} |"
            )
    for engine, why in figures["skipped"].items():
        yield f"| {ENGINES[engine].title} | left out: {why} | | | | |"


def _named(engine: str, table: Figures, point: Figures) -> str:
    details = [table["note"]] if table["note"] else []
    if engine in _EFFORTS:
        details.append(f"{_EFFORTS[engine]} {point['effort']:,}")
        if engine == "annoy" and "default" in point["why"]:
            details.append("the default")
    title = ENGINES[engine].title
    return f"{title} ({', '.join(details)})" if details else title


def _builds(sets: Mapping[str, Figures]) -> Iterator[str]:
    yield "### Builds and memory"
    yield ""
    yield "*Held*: the maximum anonymous memory of the building processes, including 40 MiB of"
    yield "Python."
    yield "*Mapped or loaded*: the bytes that a search reads. *Own*: the memory of each process"
    yield "that"
    yield "opens the index; the rest are mapped files, which processes share."
    yield ""
    yield "| set | engine | build, s | held, MiB | mapped or loaded, MiB | own, MiB |"
    yield "|---|---|---|---|---|---|"
    for figures in sets.values():
        for engine, table in figures["engines"].items():
            if engine != "exact":
                yield (
                    f"| {figures['title']} | {ENGINES[engine].title} "
                    f"| {table['build_seconds']:,.1f} "
                    f"| {_mebibytes(table['build_peak_anonymous_bytes'])} "
                    f"| {_mebibytes(table['bytes'])} | {_mebibytes(table['own_bytes'])} |"
                )


def _worse(sets: Mapping[str, Figures]) -> Iterator[str]:
    """List every comparison that Simile loses."""
    yield "### Where Simile is slower or worse"
    yield ""
    found = [line for figures in sets.values() for line in _losses(figures)]
    yield from found or ["- Nowhere in these figures."]


def _losses(figures: Figures) -> Iterator[str]:
    title = figures["title"]
    for target in TARGETS:
        ours = _ours(figures, target)
        if ours is None:
            continue
        if ours["recall"] < target:
            yield f"- {title}: the target recall is {target:g}, and {ours['recall']:.4f} was"
            yield "reached."
        for name in _OTHERS:
            theirs = _other(figures, name, target)
            if theirs is None:
                continue
            together = _quotient(ours, theirs, _TOGETHER)
            alone = _quotient(theirs, ours, _ALONE)
            if min(together, alone) < 1:
                yield (
                    f"- {title}, recall {target:g}: {together:.2f} times the queries of "
                    f"{ENGINES[name].title} in batches of 32, {alone:.2f} times one by one."
                )
    builds = {name: table["build_seconds"] for name, table in figures["engines"].items()}
    for name in ("annoy", "hnswlib", "faiss"):
        ours_seconds = builds.get("simile-0.99", 0.0)
        if name in builds and ours_seconds > builds[name]:
            times = ours_seconds / max(builds[name], 1e-9)
            theirs_title = ENGINES[name].title
            yield f"- {title}: the build takes {times:.1f} times as long as {theirs_title}'s."


def _growth(rows: Sequence[Figures]) -> Iterator[str]:
    yield "### As a collection grows"
    yield ""
    yield "Hard vectors of 256 dimensions, with a target recall of 0.99."
    yield ""
    yield "![Costs over size](images/benchmark-growth.png)"
    yield ""
    yield (
        "| vectors | plan | build, s | held, MiB | mapped, MiB | recall@10 | one query, ms p50 "
        "| queries/s, batches of 32 | two threads |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        yield (
            f"| {row['count']:,} | {row['plan']} | {row['build_seconds']:,.1f} "
            f"| {_mebibytes(row['build_peak_anonymous_bytes'])} | {_mebibytes(row['bytes'])} "
            f"| {row['recall']:.4f} | {row[_ALONE]:.2f} | {row[_TOGETHER]:,.0f} "
            f"| {row['queries_per_second_two_threads']:,.0f} |"
        )


def _ours(figures: Figures, target: float) -> Figures | None:
    return _point(figures, f"simile-{target:g}", "default")


def _other(figures: Figures, engine: str, target: float) -> Figures | None:
    """Return the engine's point that reaches the target; exact search always does."""
    return _point(figures, engine, "default" if engine == "exact" else f"{target:g}")


def _point(figures: Figures, engine: str, why: str) -> Figures | None:
    points: Sequence[Figures] = figures["engines"].get(engine, {"points": ()})["points"]
    return next((point for point in points if why in point["why"]), None)


def _over(ours: Figures, theirs: Figures | None, *, show_recall: bool = False) -> str:
    if theirs is None:
        return "-"
    together, alone = _quotient(ours, theirs, _TOGETHER), _quotient(theirs, ours, _ALONE)
    recall = f" (recall {theirs['recall']:.3f})" if show_recall else ""
    return f"{together:.2f} / {alone:.2f}{recall}"


def _quotient(one: Mapping[str, Any], other: Mapping[str, Any], name: str) -> float:
    return float(one[name]) / float(other[name])


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.0f}"

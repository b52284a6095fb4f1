"""Writes the section "Swaps" of the page from the figures."""

from __future__ import annotations

from collections.abc import Iterator

from tests.benchmarks.results import Figures, described


def written(figures: Figures) -> str:
    """Return the section in Markdown."""
    pause = f"{1000 * figures['pause_seconds']:g} ms"
    return "\n".join(
        [
            "## Swaps",
            "",
            "A searcher answers queries while versions are activated: the real service, over the",
            f"in-memory broker, with {figures['clients']} clients that pause {pause} after each",
            "answer.",
            "Clients, broker and searcher share a process and an event loop, whose stalls a 1 ms",
            "ticker measures. Each item's label names its version: an answer with neighbours of",
            "another version than its own would be *mixed*.",
            "",
            f"Measured on {described(figures['machine'])}.",
            "",
            *_large(figures["large"]),
            "",
            *_quiet(figures["quiet"], figures["quiet_pause_seconds"]),
            "",
            *_small(figures["small"]),
        ]
    )


def _large(figures: Figures) -> Iterator[str]:
    steady, swapping = figures["steady"], figures["swapping"]
    count, dimension = figures["count"], figures["dimension"]
    size = f"{count:,} x {dimension:,} ({count * dimension * 4 / 1e6:,.0f} MB of vectors)"
    yield f"### {swapping['swaps']} swaps of {size}"
    yield ""
    yield "| | queries | p50, ms | p99, ms | longest stall, ms |"
    yield "|---|---|---|---|---|"
    yield _row("steady load, no swaps", steady, f"{steady['longest_stall_ms']:.1f}")
    yield _row("in the second after a swap", swapping["after"], "")
    yield _row("while the next version is verified and opened", swapping["opening"], "")
    yield _row("during all swaps", swapping["all"], f"{swapping['longest_stall_ms']:.1f}")
    yield ""
    yield (
        f"The p99 in the second after a swap is {figures['p99_after_over_steady']:.2f} times that "
        "of the steady load."
    )
    yield (
        f"From activation to the first answer of the new version take "
        f"{swapping['opening_seconds']:.2f} s: the wait for the"
    )
    yield "next check of the volume, the hashes of all files, and the canary queries."
    yield f"{swapping['errors']} errors, {swapping['mixed']} mixed answers."


def _quiet(figures: Figures, pause_seconds: float) -> Iterator[str]:
    steady, swapping = figures["steady"], figures["swapping"]
    yield (
        f"The same with one client that pauses {1000 * pause_seconds:g} ms, which leaves the loop "
        "idle: its longest stall without"
    )
    yield (
        f"swaps is {steady['longest_stall_ms']:.1f} ms, and over {swapping['swaps']} swaps "
        f"{swapping['longest_stall_ms']:.1f} ms."
    )


def _row(what: str, times: Figures, stall: str) -> str:
    if not times["asked"]:
        return f"| {what} | 0 | | | {stall} |"
    return (
        f"| {what} | {times['asked']:,} | {times['p50_ms']:.2f} | {times['p99_ms']:.2f} | {stall} |"
    )


def _small(figures: Figures) -> Iterator[str]:
    before, after = figures["before"], figures["after"]
    yield f"### {figures['swaps']:,} swaps as fast as the searcher follows"
    yield ""
    yield (
        f"{figures['swaps'] / figures['seconds']:.0f} swaps a second, {figures['answers']:,} "
        f"answers in this time: {figures['errors']} errors, {figures['mixed']} mixed."
    )
    yield ""
    yield "| | before | after |"
    yield "|---|---|---|"
    yield f"| open files | {before['open_files']} | {after['open_files']} |"
    for name, title in (("anonymous", "anonymous memory"), ("mapped", "mapped index files")):
        sizes = [held[f"{name}_bytes"] / 2**20 for held in (before, after)]
        yield f"| {title}, MiB | {sizes[0]:.1f} | {sizes[1]:.1f} |"

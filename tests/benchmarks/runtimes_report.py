"""Writes the section "Runtimes" of the page from the figures."""

from __future__ import annotations

from collections.abc import Iterator

from tests.benchmarks.results import Figures, described

_LEAST_KEPT = 0.95


def written(figures: Figures) -> str:
    """Return the section in Markdown."""
    return "\n".join(_lines(figures))


def _lines(figures: Figures) -> Iterator[str]:
    runtimes = figures["runtimes"]
    measured = {name: one for name, one in runtimes.items() if "cosine_least" in one}
    yield "## Runtimes"
    yield ""
    yield f"`{figures['model_id']}` on one thread: images per second by batch size, medians of"
    yield "rounds in which every runtime has its turn. The cosine is relative to torch in fp32, on"
    yield f"{figures['photographs']:,} photographs. *top 10 kept*: the share of torch's top 10"
    yield "that is"
    yield "preserved if only the queries use the runtime, on an index by torch, and if both use it."
    yield ""
    yield f"Measured on {described(figures['machine'])}."
    yield ""
    yield "| runtime | 1 | 8 | 32 | cosine, minimum | median | top 10 kept, queries | both |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, one in measured.items():
        speeds = " | ".join(f"{one['images_per_second'][size]:.0f}" for size in ("1", "8", "32"))
        yield (
            f"| {name} | {speeds} | {one['cosine_least']:.5f} | {one['cosine_median']:.5f} | "
            f"{one['top10_queries']:.3f} | {one['top10_both']:.3f} |"
        )
    yield ""
    yield "On two cores, batches of 8 in ONNX Runtime: two workers of one thread each reach"
    yield f"{runtimes['two workers']['images_per_second']:.0f} images a second, one worker of two"
    yield f"threads reaches {runtimes['two threads a batch']['images_per_second']:.0f}."
    yield ""
    best = max(
        (one for name, one in measured.items() if name.endswith("int8")),
        key=lambda one: float(one["top10_both"]),
    )
    kept = best["top10_both"] >= _LEAST_KEPT
    yield (
        f"int8 (static, per channel, calibrated on photographs) preserves {best['top10_both']:.3f} "
    )
    yield (
        f"of the top 10 at best, if queries and index both use it; Simile would offer int8 from "
        f"{_LEAST_KEPT} on{', and does' if kept else ''}."
    )
    yield ""
    yield "GPUs were not measured, since this machine has none. Their code (CUDA graphs of fixed"
    yield "batch"
    yield "sizes, pinned memory, two workers for each GPU) has tests marked `gpu`, which were"
    yield "skipped."

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
    yield f"`{figures['model_id']}` on one thread, by batch size: images a second, medians of"
    yield "rounds in which every runtime has its turn. The cosine is to torch in fp32, on all of"
    yield f"{figures['photographs']:,} photographs. Of torch's top 10, so much is kept when only"
    yield "the queries are computed so, on an index made by torch, and when both are."
    yield ""
    yield f"Measured on {described(figures['machine'])}."
    yield ""
    yield "| runtime | 1 | 8 | 32 | cosine, least | median | top 10 kept, queries | both |"
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
    yield f"threads {runtimes['two threads a batch']['images_per_second']:.0f}."
    yield ""
    best = max(
        (one for name, one in measured.items() if name.endswith("int8")),
        key=lambda one: float(one["top10_both"]),
    )
    kept = best["top10_both"] >= _LEAST_KEPT
    yield (
        f"int8 (static, per channel, calibrated on photographs) keeps {best['top10_both']:.3f} of "
    )
    yield (
        f"the top 10 at best, queries and index both computed so; {_LEAST_KEPT} is the least that "
        f"{'is' if kept else 'would be'} offered."
    )
    yield ""
    yield "What a GPU reaches was not measured: there is none in this machine. Its code (CUDA"
    yield "graphs of fixed batch sizes, pinned memory, two workers a GPU) has tests marked `gpu`,"
    yield "which were skipped here."

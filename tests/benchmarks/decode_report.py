"""Writes the section "Decoding" of the page and its picture from the figures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib import pyplot as plt

from tests.benchmarks.decoders import FULL, SIMILE
from tests.benchmarks.results import Figures, described

mpl.use("Agg")

_LARGE: Final = "12 MP"


def written(figures: Figures) -> str:
    """Return the section in Markdown."""
    return "\n".join([*_method(figures), *_costs(figures), *_kept(figures), *_shrinking(figures)])


def draw(figures: Figures, path: Path) -> None:
    """Plot CPU time of a 12-megapixel JPEG over the preserved share of the top 10."""
    figure, panel = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    for name, way in figures["ways"].items():
        spent, kept = way["cpu_ms"][_LARGE], way["top10_kept"][_LARGE]["queries"]
        own = name == SIMILE
        panel.plot(
            spent, kept, linestyle="", color="#c2410c" if own else "#2563eb",
            marker="*" if own else "o", markersize=14 if own else 6,
        )  # fmt: skip
        panel.annotate(name, (spent, kept), xytext=(6, 5), textcoords="offset points", fontsize=7)
    panel.set_xlabel("CPU ms a 12-megapixel JPEG")
    panel.set_ylabel("top 10 kept")
    panel.margins(x=0.25, y=0.15)
    panel.grid(visible=True, alpha=0.2)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _method(figures: Figures) -> Iterator[str]:
    yield "## Decoding"
    yield ""
    yield "This benchmark decodes a photograph's bytes to the 224 x 224 input pixels of the default"
    yield "network. The tables show the CPU time of an image (the median over photographs of the"
    yield "minimum over rounds in random order), and the share of the top 10 that stays the same as"
    yield "with every pixel decoded. The larger sizes are the same photographs: enlarged, with a"
    yield "camera's noise, 4:2:0, every third one rotated by EXIF."
    yield ""
    yield "Simile uses Pillow's draft (libjpeg decodes at an eighth, a quarter or a half of the"
    yield "size)"
    yield "with at least 1.4 times the needed pixels, then one bicubic step. The model id names"
    yield "this"
    yield "decoding, so that queries and collections have the same pixels."
    yield ""
    bytes_ = ", ".join(
        f"{count} of *{size}* ({figures['image_bytes'][size] / 1000:,.0f} kB)"
        for size, count in figures["asked"].items()
    )
    yield f"Queries: {bytes_};"
    yield f"{figures['stored']:,} photographs are stored. The model is `{figures['model_id']}`."
    yield ""
    yield f"Measured on {described(figures['machine'])};"
    yield ", ".join(f"{name} {version}" for name, version in figures["libraries"].items()) + "."
    if figures["missing"]:
        yield f"Not installed and therefore left out: {', '.join(figures['missing'])}."
    yield ""
    yield "![Cost against the preserved share](images/benchmark-decode.png)"
    yield ""


def _costs(figures: Figures) -> Iterator[str]:
    sizes = list(figures["asked"])
    full = figures["ways"][FULL]["cpu_ms"]
    yield "| CPU ms per image | " + " | ".join(sizes) + " | 12 MP, share of every pixel |"
    yield "|---" * (len(sizes) + 2) + "|"
    for name, way in figures["ways"].items():
        spent = " | ".join(f"{way['cpu_ms'][size]:.2f}" for size in sizes)
        yield f"| {name} | {spent} | {way['cpu_ms'][_LARGE] / full[_LARGE]:.2f} |"
    yield ""


def _kept(figures: Figures) -> Iterator[str]:
    sizes = list(figures["asked"])
    yield "The share of the top 10 that is preserved if only the queries are decoded this way, on"
    yield "an"
    yield "index with every pixel decoded / if the index is decoded this way as well:"
    yield ""
    yield "| top 10 preserved | " + " | ".join(sizes) + " |"
    yield "|---" * (len(sizes) + 1) + "|"
    for name, way in figures["ways"].items():
        shares = (way["top10_kept"][size] for size in sizes)
        kept = " | ".join(f"{one['queries']:.3f} / {one['both']:.3f}" for one in shares)
        yield f"| {name} | {kept} |"
    yield ""
    yield "Drafts with just the needed pixels lose most at sizes where libjpeg's own filter does"
    yield "nearly all of the scaling: an eighth of 6 MP is 258 pixels high. Drafts with twice the"
    yield "pixels preserve no more at 12 MP, and take longer. Entropy decoding is the minimum cost"
    yield "of"
    yield "a large JPEG, at any size."
    yield ""


def _shrinking(figures: Figures) -> Iterator[str]:
    moved = figures["shrinking"]
    same = "identical" if moved["same_input"] else "NOT identical"
    yield "### Shrunk at upload"
    yield ""
    yield "With `SIMILE_UPLOAD_SHRINK` upload makes the draft of a large photograph, and sends the"
    yield f"uncompressed pixels; the network's input is {same}. For a 12-megapixel"
    yield "photograph:"
    yield ""
    yield "| | off | on |"
    yield "|---|---|---|"
    yield f"| additional CPU ms of upload | 0 | {moved['upload_cpu_ms']:.1f} |"
    before, after = moved["embedder_cpu_ms"], moved["embedder_cpu_ms_shrunk"]
    yield f"| embedder's decoding, CPU ms | {before:.1f} | {after:.1f} |"
    yield f"| sent, MB | {moved['bytes'] / 1e6:.2f} | {moved['bytes_shrunk'] / 1e6:.2f} |"
    yield ""
    yield "The setting moves work instead of saving it. Use it if the embedders' CPUs are the"
    yield "bottleneck, as beside a GPU."

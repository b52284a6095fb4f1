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
    yield "From a photograph's bytes to the 224 x 224 pixels that the default network looks at: CPU"
    yield "time of one image (the median of each photograph's least of some rounds, in which the"
    yield "ways come in any order), and what is kept of the top 10 that decoding every pixel gives."
    yield "The larger sizes are made of the same photographs: enlarged, with a camera's noise,"
    yield "4:2:0, every third one turned by EXIF."
    yield ""
    yield "Simile's way is Pillow's draft (libjpeg leaves out what is finer than an eighth, a"
    yield "quarter or a half) at no less than 1.4 times the pixels needed, then one bicubic step."
    yield "The name of these pixels is in the model's id, so that queries and collections share"
    yield "them."
    yield ""
    bytes_ = ", ".join(
        f"{count} of *{size}* ({figures['image_bytes'][size] / 1000:,.0f} kB)"
        for size, count in figures["asked"].items()
    )
    yield f"Asked by {bytes_};"
    yield f"{figures['stored']:,} are stored. The model is `{figures['model_id']}`."
    yield ""
    yield f"Measured on {described(figures['machine'])};"
    yield ", ".join(f"{name} {version}" for name, version in figures["libraries"].items()) + "."
    if figures["missing"]:
        yield f"Not installed, and so left out: {', '.join(figures['missing'])}."
    yield ""
    yield "![Cost against what is kept](images/benchmark-decode.png)"
    yield ""


def _costs(figures: Figures) -> Iterator[str]:
    sizes = list(figures["asked"])
    full = figures["ways"][FULL]["cpu_ms"]
    yield "| CPU ms an image | " + " | ".join(sizes) + " | 12 MP, of every pixel's |"
    yield "|---" * (len(sizes) + 2) + "|"
    for name, way in figures["ways"].items():
        spent = " | ".join(f"{way['cpu_ms'][size]:.2f}" for size in sizes)
        yield f"| {name} | {spent} | {way['cpu_ms'][_LARGE] / full[_LARGE]:.2f} |"
    yield ""


def _kept(figures: Figures) -> Iterator[str]:
    sizes = list(figures["asked"])
    yield "Of the top 10, so much is kept when only the queries are decoded so, on an index of"
    yield "which every pixel was decoded / when the index is made so too:"
    yield ""
    yield "| top 10 kept | " + " | ".join(sizes) + " |"
    yield "|---" * (len(sizes) + 1) + "|"
    for name, way in figures["ways"].items():
        shares = (way["top10_kept"][size] for size in sizes)
        kept = " | ".join(f"{one['queries']:.3f} / {one['both']:.3f}" for one in shares)
        yield f"| {name} | {kept} |"
    yield ""
    yield "Drafts of no more than the pixels needed lose most at the sizes where libjpeg's own"
    yield "filter does nearly all of the scaling: of 6 MP an eighth is 258 high. Drafts of twice"
    yield "the pixels keep no more of 12 MP, and take longer. What a large JPEG costs at the least"
    yield "is reading its codes, whatever the size decoded at."
    yield ""


def _shrinking(figures: Figures) -> Iterator[str]:
    moved = figures["shrinking"]
    same = "the same to the bit" if moved["same_input"] else "NOT the same"
    yield "### Shrunk at upload"
    yield ""
    yield "With `SIMILE_UPLOAD_SHRINK` the draft of a large photograph is made by upload, which"
    yield f"sends its pixels as they are; the network's input is {same}. For a 12-megapixel"
    yield "photograph:"
    yield ""
    yield "| | off | on |"
    yield "|---|---|---|"
    yield f"| upload, CPU ms more | 0 | {moved['upload_cpu_ms']:.1f} |"
    before, after = moved["embedder_cpu_ms"], moved["embedder_cpu_ms_shrunk"]
    yield f"| embedder's decoding, CPU ms | {before:.1f} | {after:.1f} |"
    yield f"| sent, MB | {moved['bytes'] / 1e6:.2f} | {moved['bytes_shrunk'] / 1e6:.2f} |"
    yield ""
    yield "It moves work rather than saving it: worth it where embedders' CPUs are the scarce ones,"
    yield "as beside a GPU."

"""Measures decoding and its short cuts: `python -m tests.benchmarks.decode`.

Writes decode.json, a section of benchmarks.md and a picture. CPU time is that of the process,
with a single thread. The default network measures the share of the top 10 that is preserved.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import click
import numpy as np
from PIL import Image, ImageOps

from services.embedder.models import loading
from services.embedder.models.model import Model, Pixels, Vectors
from services.embedder.settings import EmbedderSettings
from services.shared import imaging
from services.upload.query.shrink import Shrinker
from tests.benchmarks import decode_report, decoders, photographs, results
from tests.benchmarks.decoders import Decoder
from tests.benchmarks.display import Display, shown
from tests.support import pictures

_STORED_EVERY: Final = 4
_ASKED: Final = 60
_TIMED: Final = 12
_ROUNDS: Final = 4
_TURNED_EVERY: Final = 3
_SHOTS: Final = {
    "500 x 375": (_ASKED, (500, 375), 88, 2.0),
    "6 MP": (24, (2747, 2060), 92, 4.0),
    "12 MP": (24, (4000, 3000), 92, 5.0),
}
"""Count, size, JPEG quality, and noise (standard deviation of 255 levels)."""
_K: Final = 10
_BATCH: Final = 16

Photographs = Mapping[str, Sequence[bytes]]
"""Photographs by the name of their size."""


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs"), show_default=True)
def main(out: Path) -> None:
    """Compare ways of decoding on photographs as they are and enlarged, up to 12 megapixels."""
    # This runtime's model may be shared by several threads.
    settings = EmbedderSettings(runtime="onnxruntime", device="cpu")
    with shown() as display:
        ways = decoders.installed()
        display.expect(2 + _ROUNDS + len(ways))
        display.at("making photographs")
        asked = _asked()
        display.done()
        costs = _costs(ways, asked, display)
        model, *_ = loading.load(settings, photographs.LIMITS)
        kept = _kept(ways, asked, model, display)
        figures = {
            "machine": results.machine(),
            "measured": time.strftime("%Y-%m-%d"),
            "model_id": model.model_id,
            "stored": len(_stored()),
            "asked": {size: len(images) for size, images in asked.items()},
            "image_bytes": {
                size: statistics.median(map(len, images)) for size, images in asked.items()
            },
            "ways": {
                name: {"cpu_ms": costs[name], "top10_kept": kept[name]} for name in ways
            },
            "libraries": decoders.versions(),
            "missing": decoders.missing(),
            "shrinking": asyncio.run(_shrinking(asked["12 MP"][:_TIMED], model.model_id)),
        }  # fmt: skip
    results.save(out / "benchmarks" / "decode.json", figures)
    decode_report.draw(figures, out / "images" / "benchmark-decode.png")
    results.write_section(out / results.PAGE, "decode", decode_report.written(figures))
    click.echo(f"wrote {out / results.PAGE}")


def _stored() -> list[Path]:
    return photographs.paths()[::_STORED_EVERY]


def _asked() -> Photographs:
    """Return photographs outside the index, a third of them rotated by EXIF as by a phone."""
    others = photographs.paths()[2::_STORED_EVERY]
    paths = others[:: len(others) // _ASKED][:_ASKED]
    asked = {"as they are": [path.read_bytes() for path in paths]}
    with ThreadPoolExecutor() as threads:
        for name, (count, size, quality, noise) in _SHOTS.items():
            shot = partial(_shot, size=size, quality=quality, noise=noise)
            asked[name] = list(threads.map(shot, range(count), paths[:: _ASKED // count]))
    return asked


def _shot(number: int, path: Path, *, size: tuple[int, int], quality: int, noise: float) -> bytes:
    """Return the photograph as a camera of that size would have written it: its noise, 4:2:0."""
    with Image.open(path) as opened:
        scene = opened.convert("RGB")
    pixels = np.asarray(ImageOps.fit(scene, size, Image.Resampling.BICUBIC)).astype(np.float32)
    drawn = np.random.default_rng(number).standard_normal(pixels.shape[:2], np.float32)
    noisy = np.clip(pixels + noise * drawn[..., None], 0, 255).astype(np.uint8)
    shot, turn = Image.fromarray(noisy), 1
    if number % _TURNED_EVERY == 0:
        shot, turn = shot.transpose(Image.Transpose.ROTATE_90), 6
    return pictures.encoded(
        shot, "JPEG", quality=quality, subsampling="4:2:0", exif=pictures.exif(turn)
    )


def _costs(
    ways: Mapping[str, Decoder], asked: Photographs, display: Display
) -> Mapping[str, Mapping[str, float]]:
    """Return CPU milliseconds by way and size: the median of each photograph's minimum."""
    least = {(way, size): np.full(_TIMED, np.inf) for way in ways for size in asked}
    for number in range(_ROUNDS + 1):
        display.at(f"costs, round {number} of {_ROUNDS}")
        for size, images in asked.items():
            for place, image in enumerate(images[:_TIMED]):
                # The first run has cold caches, or threads of another way still at work.
                for way in random.sample(list(ways), len(ways)):
                    spent = _cpu_ms(ways[way], image)
                    least[way, size][place] = min(least[way, size][place], spent)
        display.done()
    return {way: {size: float(np.median(least[way, size])) for size in asked} for way in ways}


def _cpu_ms(decode: Decoder, image: bytes) -> float:
    started = time.process_time()
    decode(image)
    return 1000 * (time.process_time() - started)


class _Embedder:
    """Computes vectors of pixels, each once: many ways give the same pixels."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._known: dict[bytes, Vectors] = {}

    def vectors(self, images: Sequence[bytes], decode: Decoder) -> Vectors:
        """Return vectors of unit length."""
        with ThreadPoolExecutor() as threads:
            pixels = list(threads.map(decode, images))
            names = [one.tobytes() for one in pixels]
            new = {
                name: one
                for name, one in zip(names, pixels, strict=True)
                if name not in self._known
            }
            parts = [list(new.items())[at : at + _BATCH] for at in range(0, len(new), _BATCH)]
            for part, found in zip(parts, threads.map(self._embed, parts), strict=True):
                self._known.update(zip([name for name, _ in part], found, strict=True))
        return np.stack([self._known[name] for name in names])

    def _embed(self, part: Sequence[tuple[bytes, Pixels]]) -> Vectors:
        vectors = self._model.embed(np.stack([pixels for _, pixels in part]))
        unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


def _kept(
    ways: Mapping[str, Decoder], asked: Photographs, model: Model, display: Display
) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
    """Return the preserved share of the top 10 by way and size: queries alone, and both sides."""
    embedder, full = _Embedder(model), ways[decoders.FULL]
    stored = [path.read_bytes() for path in _stored()]
    truth = embedder.vectors(stored, full)
    wanted = {size: _nearest(embedder.vectors(asked[size], full), truth) for size in asked}
    kept = {}
    for way, decode in ways.items():
        display.at(f"vectors: {way}")
        own = embedder.vectors(stored, decode)
        queries = {size: embedder.vectors(images, decode) for size, images in asked.items()}
        kept[way] = {
            size: {
                "queries": _share(wanted[size], _nearest(queries[size], truth)),
                "both": _share(wanted[size], _nearest(queries[size], own)),
            }
            for size in asked
        }
        display.done()
    return kept


def _nearest(queries: Vectors, stored: Vectors) -> list[list[int]]:
    nearest: list[list[int]] = np.argsort(-(queries @ stored.T), axis=1)[:, :_K].tolist()
    return nearest


def _share(wanted: Sequence[Sequence[int]], found: Sequence[Sequence[int]]) -> float:
    same = [len(set(one) & set(other)) for one, other in zip(wanted, found, strict=True)]
    return sum(same) / (_K * len(wanted))


async def _shrinking(images: Sequence[bytes], model_id: str) -> results.Figures:
    """Measure SIMILE_UPLOAD_SHRINK: medians of CPU milliseconds, and of bytes sent."""
    shrinker = Shrinker(photographs.LIMITS, on=True)
    rows = []
    for image in images:
        header = imaging.probe(image, photographs.LIMITS)
        before = time.process_time()
        shrunk = await shrinker.shrunk(image, header, model_id, None)
        upload = 1000 * (time.process_time() - before)
        same = np.array_equal(_prepared(image), _prepared(shrunk))
        costs = _cpu_ms(_prepared, image), _cpu_ms(_prepared, shrunk)
        rows.append((upload, *costs, len(image), len(shrunk), same))
    names = ("upload_cpu_ms", "embedder_cpu_ms", "embedder_cpu_ms_shrunk", "bytes", "bytes_shrunk")
    medians = dict(zip(names, map(statistics.median, zip(*rows, strict=True)), strict=False))
    return {**medians, "same_input": all(row[-1] for row in rows)}


def _prepared(image: bytes) -> Pixels:
    return decoders.LITE0.prepare(image, photographs.LIMITS)


if __name__ == "__main__":
    main()

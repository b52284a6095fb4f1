"""Decodes photographs to the network's input by Simile's own way, and by other libraries.

Each way returns the upright middle 224 x 224 pixels, the short side scaled to 256. Libraries that
are not installed are left out.
"""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any, Final

import numpy as np
from PIL import Image, features

from services.embedder.models.model import Pixels, Preprocessing
from services.shared import imaging
from services.shared.imaging.orientation import orientation_of, upright
from tests.benchmarks.photographs import LIMITS

Decoder = Callable[[bytes], Pixels]

LITE0: Final = Preprocessing(256, 224)
FULL: Final = "Pillow, every pixel"
SIMILE: Final = "Simile"
RIVALS: Final = ("simplejpeg", "torchvision", "opencv-python-headless", "pyvips")

_SHORT: Final = LITE0.resize
_SIDE: Final = LITE0.crop


def installed() -> Mapping[str, Decoder]:
    """Return the available ways by name; Pillow's first."""
    decoders: dict[str, Decoder] = {
        FULL: lambda image: _pillow(image, None),
        SIMILE: lambda image: LITE0.prepare(image, LIMITS),
        "Pillow, draft 1x": lambda image: _pillow(image, _SHORT),
        "Pillow, draft 2x": lambda image: _pillow(image, 2 * _SHORT),
        "Pillow, draft 2x, reducing gap 1": lambda image: _pillow(image, 2 * _SHORT, gap=1.0),
        "Pillow, every pixel, reducing gap 3": lambda image: _pillow(image, None, gap=3.0),
    }
    made: Mapping[str, Callable[[], Decoder]] = dict(
        zip(RIVALS, (_simplejpeg, _torchvision, _opencv, _pyvips), strict=True)
    )
    for library, make in made.items():
        try:
            metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
        decoders[library] = make()
    return decoders


def versions() -> Mapping[str, str]:
    """Return the versions of the libraries."""
    there = {library for library in RIVALS if library in installed()}
    found = {library: metadata.version(library) for library in ("pillow", *sorted(there))}
    return {**found, "Pillow's libjpeg-turbo": features.version("libjpeg_turbo") or "none"}


def missing() -> list[str]:
    """Return the libraries that aren't installed."""
    there = installed()
    return [library for library in RIVALS if library not in there]


def _pillow(image: bytes, target: int | None, gap: float | None = None) -> Pixels:
    return _square(imaging.decode(image, LIMITS, target=target), gap)


def _square(decoded: Image.Image, gap: float | None = None) -> Pixels:
    side = min(decoded.size) * _SIDE / _SHORT
    left, top = ((length - side) / 2 for length in decoded.size)
    box = (left, top, left + side, top + side)
    return np.asarray(decoded.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC, box, gap))


def _simplejpeg() -> Decoder:
    library: Any = importlib.import_module("simplejpeg")

    def decode(image: bytes) -> Pixels:
        pixels = library.decode_jpeg(image, "RGB", min_width=_SHORT, min_height=_SHORT)
        decoded = upright(Image.fromarray(pixels), _orientation(image))
        return _square(decoded)

    return decode


def _torchvision() -> Decoder:
    torch: Any = importlib.import_module("torch")
    library: Any = importlib.import_module("torchvision.io")
    functional: Any = importlib.import_module("torchvision.transforms.v2.functional")
    torch.set_num_threads(1)
    bicubic = importlib.import_module("torchvision.transforms").InterpolationMode.BICUBIC

    def decode(image: bytes) -> Pixels:
        encoded = torch.frombuffer(bytearray(image), dtype=torch.uint8)
        pixels = library.decode_jpeg(
            encoded, library.ImageReadMode.RGB, apply_exif_orientation=True
        )
        scaled = functional.resize(pixels, [_SHORT], bicubic, antialias=True)
        square = functional.center_crop(scaled, [_SIDE, _SIDE])
        ready: Pixels = square.permute(1, 2, 0).contiguous().numpy()
        return ready

    return decode


def _opencv() -> Decoder:
    library: Any = importlib.import_module("cv2")
    library.setNumThreads(1)
    reduced = {
        1: library.IMREAD_COLOR_RGB,
        2: library.IMREAD_REDUCED_COLOR_2,
        4: library.IMREAD_REDUCED_COLOR_4,
        8: library.IMREAD_REDUCED_COLOR_8,
    }

    def decode(image: bytes) -> Pixels:
        header = imaging.probe(image, LIMITS)
        short = min(header.width, header.height)
        fraction = next((one for one in (8, 4, 2) if short >= one * _SHORT), 1)
        pixels = library.imdecode(np.frombuffer(image, np.uint8), reduced[fraction])
        if fraction > 1:
            pixels = library.cvtColor(pixels, library.COLOR_BGR2RGB)
        height, width = pixels.shape[:2]
        scale = _SHORT / min(width, height)
        size = round(width * scale), round(height * scale)
        way = library.INTER_AREA if scale < 1 else library.INTER_CUBIC
        scaled = library.resize(pixels, size, interpolation=way)
        left, top = ((length - _SIDE) // 2 for length in size)
        ready: Pixels = scaled[top : top + _SIDE, left : left + _SIDE]
        return ready

    return decode


def _pyvips() -> Decoder:
    os.environ.setdefault("VIPS_CONCURRENCY", "1")
    library: Any = importlib.import_module("pyvips")
    border = (_SHORT - _SIDE) // 2

    def decode(image: bytes) -> Pixels:
        square = library.Image.thumbnail_buffer(image, _SHORT, height=_SHORT, crop="centre")
        if square.bands == 1:
            square = square.bandjoin([square, square])
        ready: Pixels = square.crop(border, border, _SIDE, _SIDE).numpy()
        return ready

    return decode


def _orientation(image: bytes) -> int:
    with Image.open(io.BytesIO(image)) as opened:
        return orientation_of(opened)

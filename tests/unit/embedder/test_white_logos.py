"""The network distinguishes white pictures on transparent ground by their shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from services.embedder.models.loading import load
from services.embedder.settings import EmbedderSettings
from tests.support.fake_model import LIMITS
from tests.support.pictures import encoded

_STAR = [(64, 12), (78, 50), (118, 50), (86, 74), (98, 114), (64, 90), (30, 114), (42, 74),
         (10, 50), (50, 50)]  # fmt: skip
_CROSS = [(52, 12), (76, 12), (76, 52), (116, 52), (116, 76), (76, 76), (76, 116), (52, 116),
          (52, 76), (12, 76), (12, 52), (52, 52)]  # fmt: skip


def _logo(shape: list[tuple[int, int]], ground: str | None = None) -> bytes:
    picture = Image.new("RGBA", (128, 128), ground or (0, 0, 0, 0))
    ImageDraw.Draw(picture).polygon(shape, fill="white")
    return encoded(picture, "PNG")


def test_a_white_logo_is_found_by_its_shape(models_dir: Path) -> None:
    """The star on transparent is near the star on blue; neither is near a blank page."""
    settings = EmbedderSettings(
        device="cpu", workers=1, models_dir=models_dir, runtime="onnxruntime"
    )
    (model,) = load(settings, LIMITS)
    images = [
        _logo(_STAR),
        _logo(_STAR, "#3050c0"),
        _logo(_CROSS),
        encoded(Image.new("RGB", (128, 128), "white"), "PNG"),
    ]
    vectors = model.embed(np.stack([model.prepare(image) for image in images]))
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    on_blue, cross, blank = (float(vectors[0] @ other) for other in vectors[1:])
    assert on_blue > 0.8
    assert cross < 0.7
    assert blank < 0.5

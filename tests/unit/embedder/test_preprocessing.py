"""Preprocessing turns image bytes into a model's input, and an output into a unit vector."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from services.embedder.models.model import Preprocessing, model_id, unit_bytes
from services.shared.errors import InvalidVector
from tests.support import pictures
from tests.support.fake_model import LIMITS

LITE0 = Preprocessing(resize=256, crop=224)


def test_the_middle_is_cropped_at_scale() -> None:
    """A single step equals scaling the short side, then cropping the middle."""
    picture = pictures.scene(640, 400)
    pixels = LITE0.prepare(pictures.encoded(picture, "PNG"), LIMITS)
    assert pixels.shape == (224, 224, 3)
    assert pixels.dtype == np.uint8
    scaled = picture.resize((640 * 256 // 400, 256), Image.Resampling.BICUBIC)
    left, top = (scaled.width - 224) // 2, (scaled.height - 224) // 2
    two_steps = scaled.crop((left, top, left + 224, top + 224))
    assert pictures.difference(Image.fromarray(pixels), two_steps) < 1


@pytest.mark.parametrize("size", [(1, 1), (2, 90), (90, 1), (300, 4)])
def test_small_and_thin_images_fill_the_input(size: tuple[int, int]) -> None:
    """An image of one pixel gives an input of the right shape."""
    pixels = LITE0.prepare(pictures.encoded(Image.new("RGB", size, "teal"), "PNG"), LIMITS)
    assert (pixels == np.array([0, 128, 128])).all()


def test_a_large_jpeg_gives_nearly_the_same_input_as_its_png() -> None:
    """Decoding a JPEG at a fraction of its size hardly changes the input."""
    picture = pictures.scene(1800, 1200)
    limits = type(LIMITS)(2**23, 10_000_000, 100.0)
    small = LITE0.prepare(pictures.encoded(picture, "JPEG", quality=95), limits)
    full = LITE0.prepare(pictures.encoded(picture, "PNG"), limits)
    assert pictures.difference(Image.fromarray(small), Image.fromarray(full)) < 2


def test_the_model_id_names_all_that_decides_a_vector() -> None:
    """The id holds name, weights, decoder, filter, crop and dimension, each of which counts."""
    name = model_id("net", "0123456789abcdef", LITE0, 1280)
    assert name == "net@0123456789ab/pillow-v2-draft358-bicubic-256-224/1280"
    assert name != model_id("net", "0123456789abcdef", Preprocessing(288, 224), 1280)


def test_vectors_leave_at_length_one() -> None:
    """Vectors of any length become little-endian float32 of length 1."""
    for scale in (1e-30, 1.0, 1e30):
        vector = np.frombuffer(unit_bytes(np.array([3 * scale, 4 * scale], np.float32)), "<f4")
        assert np.allclose(vector, [0.6, 0.8])


@pytest.mark.parametrize("bad", [[0, 0], [float("nan"), 1], [float("inf"), 1]])
def test_a_vector_without_direction_is_refused(bad: list[float]) -> None:
    """Zero, NaN and infinity never reach an index."""
    with pytest.raises(InvalidVector):
        unit_bytes(np.array(bad, np.float32))

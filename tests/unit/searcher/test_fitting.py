"""Images of a collection that exceed the callers' limits are reduced, or reported."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from PIL import Image

from services.embedder.models import model
from services.searcher.build.source.build_limits import BuildLimits, probe
from services.searcher.build.source.fingerprint import fingerprint
from services.searcher.build.source.fitting import fitted, small_picture
from services.searcher.build.source.folder import FolderImages
from services.searcher.settings import IndexSettings
from services.shared import errors, imaging
from services.shared.settings import SharedSettings
from tests.support import pictures

PREPROCESSING: Final = model.Preprocessing(resize=64, crop=56)
MODEL_ID: Final = model.model_id("net", "0123456789abcdef", PREPROCESSING, 8)
SENT: Final = imaging.Limits(max_bytes=100_000, max_pixels=50_000, max_aspect=100.0)
LIMITS: Final = BuildLimits(imaging.Limits(4_000_000, 400_000, 100.0), SENT)


def _noisy(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(1).integers(-40, 40, (height, width, 1))
    drawn = np.asarray(pictures.scene(width, height)) + noise
    return Image.fromarray(np.clip(drawn, 0, 255).astype(np.uint8))


def _input(image: bytes) -> Any:
    wide = imaging.Limits(2**30, 10**9, 100.0)
    return PREPROCESSING.prepare(image, wide).astype(int)


@pytest.mark.parametrize(
    "options",
    [{}, {"exif": pictures.exif(6)}, {"icc_profile": b"none"}],
    ids=["", "rotated", "icc"],
)
def test_a_large_photograph_gives_the_same_input(options: dict[str, Any]) -> None:
    """The model's input is equal to the bit, and the image is within the embedders' limits."""
    image = pictures.encoded(_noisy(1600, 1200), "JPEG", quality=90, **options)
    assert len(image) > SENT.max_bytes
    small = fitted(image, LIMITS, MODEL_ID)
    header = imaging.probe(small, SENT)
    assert header.format == "BMP"
    assert (_input(small) == _input(image)).all()


def test_a_jpeg_counts_by_what_is_decoded_of_it() -> None:
    """Only the pixels decoded count; a progressive JPEG holds all of its pixels."""
    image = pictures.encoded(Image.new("RGB", (2000, 1500), "teal"), "JPEG")
    assert probe(image, LIMITS.read).width == 2000
    assert imaging.probe(fitted(image, LIMITS, MODEL_ID), SENT).width == 250
    progressive = pictures.encoded(Image.new("RGB", (2000, 1500), "teal"), "JPEG", progressive=True)
    with pytest.raises(errors.TooManyPixels, match="SIMILE_INDEX_IMAGE_MAX_PIXELS"):
        probe(progressive, LIMITS.read)


@pytest.mark.parametrize("name", ["TIFF", "PNG", "BMP"])
def test_other_large_images_are_packed_without_loss_where_that_is_enough(name: str) -> None:
    """Not a pixel changes."""
    image = pictures.encoded(pictures.scene(190, 150), name)
    tight = dataclasses.replace(SENT, max_bytes=len(image) - 1)
    if name == "PNG":
        tight = dataclasses.replace(tight, max_bytes=100_000, max_pixels=190 * 150)
    packed = fitted(image, BuildLimits(LIMITS.read, tight), MODEL_ID)
    assert len(packed) <= tight.max_bytes
    assert (_input(packed) == _input(image)).all()


@pytest.mark.parametrize("name", ["TIFF", "PNG"])
def test_images_that_do_not_fit_without_loss_are_averaged_down(name: str) -> None:
    """The image is reduced as little as necessary, and the model's input hardly changes."""
    image = pictures.encoded(_noisy(600, 500), name)
    small = fitted(image, LIMITS, MODEL_ID)
    header = imaging.probe(small, SENT)
    assert min(header.width, header.height) >= 64
    assert np.abs(_input(small) - _input(image)).mean() < 3


def test_an_image_that_fits_is_sent_unchanged() -> None:
    """The image's own bytes are sent, not a copy."""
    for image in (pictures.encoded(pictures.scene(), "JPEG"), small_picture()):
        assert fitted(image, BuildLimits(LIMITS.read, LIMITS.read), MODEL_ID) is image


def test_a_model_of_other_pixels_gets_what_fits() -> None:
    """When the id does not say which size the model needs, enough is kept for any model."""
    image = pictures.encoded(_noisy(1600, 1200), "JPEG", quality=90)
    wide = dataclasses.replace(SENT, max_bytes=2_000_000, max_pixels=2_000_000)
    small = fitted(image + bytes(2_000_000), BuildLimits(LIMITS.read, wide), "other@1/pixels/8")
    assert imaging.probe(small, wide).height == 600


@pytest.mark.parametrize(
    ("size", "setting"),
    [((900, 700), "SIMILE_INDEX_IMAGE_MAX_PIXELS"), ((1010, 10), "SIMILE_IMAGE_MAX_ASPECT")],
)
def test_an_image_left_out_by_a_limit_names_its_setting(
    size: tuple[int, int], setting: str, tmp_path: Path
) -> None:
    """The error names the setting, so that the owner can admit the image."""
    (tmp_path / "a.png").write_bytes(pictures.encoded(Image.new("L", size), "PNG"))
    with pytest.raises(errors.SimileError, match=setting):
        fingerprint(FolderImages(tmp_path), "a.png", None, LIMITS)


def test_a_file_left_out_by_its_bytes_names_its_setting(tmp_path: Path) -> None:
    """The file is refused before reading."""
    (tmp_path / "a.png").write_bytes(bytes(LIMITS.read.max_bytes + 1))
    with pytest.raises(errors.ImageTooLarge, match="SIMILE_INDEX_IMAGE_MAX_BYTES"):
        fingerprint(FolderImages(tmp_path), "a.png", None, LIMITS)


def test_a_builds_limits_are_wider_than_callers_and_never_narrower() -> None:
    """A photograph of 108 megapixels and a TIFF of 20 MB are admitted by default."""
    limits = BuildLimits.of(IndexSettings(), SharedSettings())
    assert limits.read.max_bytes > 100 * 2**20 > limits.sent.max_bytes
    assert limits.read.max_pixels >= 108_000_000 > limits.sent.max_pixels
    wide = SharedSettings(image_max_bytes=100 * 2**20, image_max_pixels=900_000_000)
    narrow = BuildLimits.of(IndexSettings(image_max_bytes=1024, image_max_pixels=1), wide)
    assert narrow.read.max_bytes == wide.image_max_bytes
    assert narrow.read.max_pixels == wide.image_max_pixels

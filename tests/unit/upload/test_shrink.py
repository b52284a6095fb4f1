"""Large photographs are shrunk before sending, with the same input of the model to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from services.embedder.models import model
from services.embedder.models.networks import NETWORKS
from services.shared import imaging
from services.shared.contracts import Box
from services.shared.errors import UndecodableImage
from services.shared.imaging.shrinking import target_of
from services.upload.query.shrink import Shrinker
from services.upload.settings import UploadSettings
from tests.support import pictures
from tests.support.volume import items, publish_version, unit_vectors
from tests.unit.upload.conftest import COUNT, Api, form_of

LIMITS = imaging.Limits(max_bytes=2**24, max_pixels=20_000_000, max_aspect=100.0)
SMALL = model.Preprocessing(resize=64, crop=56)
MODEL_ID = model.model_id("net", "0123456789abcdef", SMALL, 8)
WHOLE = Box(0, 0, 1, 1)


def _photograph(width: int = 1203, height: int = 802, name: str = "JPEG", **options: Any) -> bytes:
    """Return a picture with a camera's noise, which makes a large file."""
    noise = np.random.default_rng(width).integers(-60, 60, (height, width, 1))
    drawn = np.asarray(pictures.scene(width, height)) + noise
    picture = Image.fromarray(np.clip(drawn, 0, 255).astype(np.uint8))
    mode = options.pop("mode", "RGB")
    return pictures.encoded(picture.convert(mode), name, **{"quality": 95, **options})


async def _shrunk(image: bytes, box: Box | None = None, limits: imaging.Limits = LIMITS) -> bytes:
    shrinker = Shrinker(limits, on=True)
    return await shrinker.shrunk(image, imaging.probe(image, limits), MODEL_ID, box)


def _same_input(one: bytes, other: bytes) -> bool:
    return bool((SMALL.prepare(one, LIMITS) == SMALL.prepare(other, LIMITS)).all())


OPTIONS: list[dict[str, Any]] = [
    *({"exif": pictures.exif(turn)} for turn in range(1, 9)),
    {"mode": "L"},
    {"mode": "CMYK"},
    {"subsampling": "4:4:4"},
    {"icc_profile": b"no profile at all"},
    {"name": "MPO", "save_all": True, "append_images": [Image.new("RGB", (64, 64))]},
]


@pytest.mark.parametrize("options", OPTIONS, ids="-".join)
async def test_a_shrunk_photograph_gives_the_same_input(options: dict[str, Any]) -> None:
    """Any orientation, colour space and encoding gives fewer bytes and the same input."""
    image = _photograph(**options)
    shrunk = await _shrunk(image)
    assert len(shrunk) < len(image)
    assert _same_input(shrunk, image)


@settings(deadline=None, max_examples=20)
@given(st.integers(30, 1100), st.integers(30, 1100))
async def test_no_size_changes_the_input(width: int, height: int) -> None:
    """The input stays the same for any sides, at each fraction of the size and at none."""
    image = _photograph(width, height)
    assert _same_input(await _shrunk(image), image)


@pytest.mark.parametrize(
    "options",
    [{"progressive": True}, {"name": "PNG"}, {"name": "WEBP"}, {"width": 90, "height": 60}],
    ids=repr,
)
async def test_images_without_a_gain_are_sent_unchanged(options: dict[str, Any]) -> None:
    """Other formats, small images, and JPEGs that take much memory are sent unchanged."""
    image = _photograph(**options)
    assert await _shrunk(image) is image


async def test_a_part_of_a_photograph_is_cut_from_the_original() -> None:
    """The embedder chooses the resolution that a box needs."""
    image = _photograph()
    assert await _shrunk(image, WHOLE) is image


async def test_shrinking_is_off_by_default() -> None:
    """By default every image is sent unchanged."""
    image, on = _photograph(), UploadSettings().shrink
    header = imaging.probe(image, LIMITS)
    assert await Shrinker(LIMITS, on=on).shrunk(image, header, MODEL_ID, None) is image


async def test_a_photograph_that_rounding_makes_too_long_is_sent_unchanged() -> None:
    """Shrinking never makes an image that the embedder would refuse."""
    limits = imaging.Limits(LIMITS.max_bytes, LIMITS.max_pixels, 1.5)
    image = _photograph(1212, 808)
    assert await _shrunk(image, limits=limits) is image
    assert await _shrunk(image) is not image


async def test_a_broken_photograph_is_refused_by_name() -> None:
    """The error is the embedder's."""
    image = _photograph()
    with pytest.raises(UndecodableImage):
        await _shrunk(image[: len(image) * 2 // 3])


def test_the_models_id_says_how_large_is_enough() -> None:
    """The size is read from the id that the embedder writes, and absent for other pixels."""
    lite0 = NETWORKS["efficientnet_lite0"].preprocessing
    assert target_of(model.model_id("net", "0123456789abcdef", lite0, 1280)) == 358
    assert target_of(MODEL_ID.replace(imaging.PIXELS, "pillow-v0")) is None
    assert target_of("net@0123456789ab/draft512/8") is None


@pytest.fixture
def upload_settings() -> UploadSettings:
    """Return settings that shrink images, and cache no vectors."""
    return UploadSettings(port=0, deadline_seconds=10, shrink=True, embedding_cache_bytes=0)


async def test_the_embedder_gets_the_shrunk_photograph(api: Api) -> None:
    """Single images and those of a batch are shrunk for a collection whose model allows it."""
    publish_version(
        api.volume, "photos", unit_vectors(COUNT), items(COUNT), model_id=MODEL_ID, number=1
    )
    image = _photograph()
    for collection in ("birds", "photos"):
        answer = await api.search(image, f"/v1/search?collection={collection}")
        assert answer.status == 200
    form = form_of(_photograph(1200), collection="photos")
    assert (await api.ask("POST", "/v1/search/batch", data=form)).status == 200
    plain, *shrunk = api.embedder.embedded
    assert plain == image
    assert [one[:2] for one in shrunk] == [b"BM", b"BM"]

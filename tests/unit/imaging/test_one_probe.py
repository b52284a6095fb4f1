"""The header of an image is parsed once in each process, and the probe carried along."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from services.embedder.batcher import BatchPolicy
from services.embedder.decoding import Decoder
from services.embedder.models.model import Preprocessing, model_id
from services.embedder.work_queue import DecodeTask, WorkQueue
from services.searcher.build.journal import Content
from services.searcher.build.source.build_limits import BuildLimits
from services.searcher.build.source.fitting import Fitter
from services.shared import imaging
from services.shared.imaging.formats import heif, jpeg, tiff
from services.shared.volume.volume import Volume
from services.upload.query.body import read_header
from services.upload.query.shrink import Shrinker
from services.upload.stored_images import StoredImages
from tests.support import pictures
from tests.support.embedder_parts import instruments, job
from tests.support.fake_model import LIMITS, FakeModel
from tests.support.volume import items, publish_version, unit_vectors

FORMATS = ["JPEG", "AVIF", "HEIF", "TIFF"]
MODEL_ID = model_id("net", "0123456789abcdef", Preprocessing(resize=16, crop=16), 8)


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the parsers that read a header, in the order of their calls."""
    calls: list[str] = []

    def counted(name: str, parse: Callable[..., object]) -> Callable[..., object]:
        def parse_counted(*arguments: Any) -> object:
            calls.append(name)
            return parse(*arguments)

        return parse_counted

    for module, function in ((jpeg, "frame"), (heif, "read"), (tiff, "check")):
        name = f"{module.__name__.rpartition('.')[2]}.{function}"
        monkeypatch.setattr(module, function, counted(name, getattr(module, function)))
    return calls


def _image(name: str) -> bytes:
    return pictures.encoded(pictures.scene(), name)


def _once(name: str) -> list[str]:
    """Return the calls of one probe: a TIFF is also no usual JPEG, as a look shows."""
    return {
        "JPEG": ["jpeg.frame"],
        "AVIF": ["jpeg.frame", "heif.read"],
        "HEIF": ["jpeg.frame", "heif.read"],
        "TIFF": ["jpeg.frame", "jpeg.frame", "tiff.check"],
    }[name]


@pytest.mark.parametrize("name", FORMATS)
def test_an_embedder_reads_a_header_once(name: str, parses: list[str]) -> None:
    """The cost bound and the decoder share one probe."""
    policy = BatchPolicy(max_images=4, max_wait_seconds=0, workers=1, chunk_images=1)
    queue = WorkQueue(policy, instruments().decoding, workers_decode=False)
    decoder = Decoder(FakeModel(), LIMITS, queue, instruments().metrics)
    queue.put(job("a", _image(name)))
    task = queue.next(None)
    assert isinstance(task, DecodeTask)
    assert getattr(decoder.decode(task), "shape", None) == (8, 8, 3)
    assert parses == _once(name)


def test_an_image_that_waits_at_the_gate_keeps_its_probe(parses: list[str]) -> None:
    """A large image that was queued again is decoded without another look at its header."""
    policy = BatchPolicy(max_images=4, max_wait_seconds=0, workers=1, chunk_images=1)
    queue = WorkQueue(policy, instruments().decoding, workers_decode=False)
    decoder = Decoder(FakeModel(), LIMITS, queue, instruments().metrics, small_bytes=0)
    for name in ("first", "second"):
        queue.put(job(name, _image("HEIF")))
    first, second = (cast("DecodeTask", queue.next(None)) for _ in range(2))
    assert queue.start_large(first)
    assert decoder.decode(second) is None
    decoded = decoder.decode(first)
    assert decoded is not None
    assert queue.put_decoded(first, decoded)
    assert decoder.decode(cast("DecodeTask", queue.next(None))) is not None
    assert parses.count("heif.read") == 2


async def test_upload_reads_the_header_of_a_photograph_once(parses: list[str]) -> None:
    """The check of the header and the shrinking of the photograph share one probe."""
    limits = imaging.Limits(max_bytes=2**20, max_pixels=10**6, max_aspect=100.0)
    image = pictures.encoded(pictures.scene(800, 600), "JPEG", quality=95)
    known = await read_header(image, limits, 60)
    shrunk = await Shrinker(limits, on=True).shrunk(image, known, MODEL_ID, None)
    assert shrunk.startswith(b"BM")
    assert parses == ["jpeg.frame"]


@pytest.mark.parametrize("name", FORMATS)
async def test_a_thumbnail_is_made_of_one_probe(
    tmp_path: Path, name: str, parses: list[str]
) -> None:
    """The bound on memory and the decoder share one probe."""
    volume = Volume(tmp_path / "volume")
    manifest = publish_version(volume, "birds", unit_vectors(9), items(9))
    item = items(9)[0]
    file = tmp_path / "images" / "birds" / item.path
    file.parent.mkdir(parents=True)
    file.write_bytes(_image(name))
    images = StoredImages(tmp_path / "images", thumbnail_pixels=16, thumbnail_cache_bytes=0)
    small, _ = await images.thumbnail(manifest, item)
    assert small.media_type == "image/jpeg"
    assert parses
    assert len(parses) == len(set(parses))


@pytest.mark.parametrize("name", ["JPEG", "HEIF"])
async def test_a_build_reads_the_header_of_a_large_image_once(
    tmp_path: Path, name: str, parses: list[str]
) -> None:
    """An image that is too large for the embedders is decoded with the probe that showed it."""
    image = _image(name)
    (tmp_path / "a").write_bytes(image)
    content = Content(hashlib.sha256(image).hexdigest(), "a")
    sent = imaging.Limits(max_bytes=2**20, max_pixels=1000, max_aspect=100.0)
    fitter = Fitter(tmp_path, BuildLimits(LIMITS, sent))
    no_embedder = cast("Any", None)
    assert (await fitter.image(content, MODEL_ID, no_embedder)).startswith(b"BM")
    assert parses == _once(name)

"""Sizes and costs of HEIC and AVIF files are read from their boxes alone."""

from __future__ import annotations

import contextlib
import struct

import pytest

from services.shared import errors, imaging
from services.shared.imaging.formats import heif, isobmff, tracks, video
from services.shared.imaging.probe import opened_image
from tests.hostile import containers
from tests.hostile.mutations import mutated
from tests.support import heif_files, pictures
from tests.support.heif_files import File, Part

LIMITS = imaging.Limits(max_bytes=15 * 2**20, max_pixels=64_000_000, max_aspect=100.0)


def _tiles(rows: int, columns: int, side: int, width: int, height: int) -> bytes:
    """Return a HEIC in tiles, as phones write it; all tiles share their bytes."""
    configuration, picture = heif_files.coded("HEIF", side)
    content = heif_files.grid(rows, columns, width, height)
    properties = [configuration, heif_files.size(width, height), heif_files.depth(),
                  heif_files.size(side, side)]  # fmt: skip
    tile = Part(b"hvc1", [(len(content), len(picture))], (1, 4, 3))
    count = rows * columns
    parts = [Part(b"grid", [(0, len(content))], (2, 3)), *[tile] * count]
    references = [(b"dimg", 1, range(2, 2 + count))]
    return File(content + picture, parts, properties, references).encoded()


_SCENE = pictures.scene(200, 120)
HONEST = {
    "heic": pictures.encoded(_SCENE, "HEIF"),
    "heic odd size": pictures.encoded(pictures.scene(61, 37), "HEIF"),
    "heic transparent": pictures.encoded(_SCENE.convert("RGBA"), "HEIF"),
    "heic grey": pictures.encoded(_SCENE.convert("L"), "HEIF"),
    "heic turned": pictures.encoded(_SCENE, "HEIF", exif=pictures.exif(6)),
    "heic with metadata": pictures.encoded(
        _SCENE, "HEIF", exif=pictures.exif(1), xmp=b"<x/>" * 1000
    ),
    "heic in tiles": _tiles(2, 3, 256, 700, 500),
    "avif": pictures.encoded(_SCENE, "AVIF", speed=10),
    "avif transparent": pictures.encoded(_SCENE.convert("RGBA"), "AVIF", speed=10),
    "avif grey": pictures.encoded(_SCENE.convert("L"), "AVIF", speed=10, subsampling="4:0:0"),
    "avif turned": pictures.encoded(_SCENE, "AVIF", speed=10, exif=pictures.exif(6)),
    "avif animated": heif_files.animated(20),
}


@pytest.mark.parametrize("name", HONEST)
def test_the_boxes_say_the_size_that_the_decoder_says(name: str) -> None:
    """The size is right for rotated, animated and tiled pictures, too, and each decodes."""
    header = imaging.probe(HONEST[name], LIMITS)
    with opened_image(HONEST[name], LIMITS) as (opened, _):
        assert (header.width, header.height) == opened.size
        assert header.format == opened.format
    shown = header.width * header.height
    assert shown <= header.decoded_pixels <= 4 * shown + heif.FLOOR_PIXELS
    assert imaging.decode(HONEST[name], LIMITS).width > 0


def test_a_photograph_in_hundreds_of_tiles_is_taken() -> None:
    """A file as large as phones write is accepted: 48 megapixels in tiles of 512."""
    header = imaging.probe(_tiles(12, 16, 512, 8064, 6048), LIMITS)
    assert (header.width, header.height) == (8064, 6048)
    assert header.decoded_pixels == 12 * 16 * 512**2


@pytest.mark.parametrize("kind", [kind for kind in containers.KINDS if not kind.startswith("tiff")])
def test_work_that_a_few_bytes_repeat_is_refused_by_the_boxes(kind: str) -> None:
    """Each kind of file is refused before a library opens it."""
    for image in containers.variants(kind):
        with pytest.raises((errors.UndecodableImage, errors.TooManyPixels)):
            heif.read(image, LIMITS.max_pixels)


def test_layers_of_an_avif_are_one_picture() -> None:
    """An AVIF may hold a picture for each spatial layer, but not two in a layer."""
    frame, in_layer = bytes([6 << 3 | 2, 1, 0]), bytes([6 << 3 | 6, 1 << 3, 1, 0])
    configuration, picture = heif_files.coded("AVIF", 64)
    one = video.av1(configuration[8:], picture, video.Units())
    assert one == video.Coded(64 * 64, 1)
    layered = video.av1(configuration[8:], picture + in_layer, video.Units())
    assert layered == video.Coded(2 * 64 * 64, 1)
    again = video.av1(configuration[8:], picture + frame, video.Units())
    assert again == video.Coded(64 * 64, 2)


def test_pieces_of_pictures_are_counted_over_the_whole_file() -> None:
    """Tiles that share many tiny pieces are refused by the sum of the pieces."""
    configuration, _ = heif_files.coded("HEIF", 64)
    content = heif_files.grid(10, 10, 640, 640)
    tile = Part(b"hvc1", [(len(content), 4 * 1000)], (1, 2, 3))
    properties = [configuration, heif_files.size(64, 64), heif_files.depth()]
    parts = [Part(b"grid", [(0, len(content))], (2, 3)), *[tile] * 100]
    image = File(content + bytes(4000), parts, properties, [(b"dimg", 1, range(2, 102))])
    with pytest.raises(errors.UndecodableImage, match="pieces"):
        heif.read(image.encoded(), LIMITS.max_pixels)


def test_an_item_that_refers_to_itself_is_refused() -> None:
    """Circular references end in an error."""
    properties = [heif_files.size(64, 64)]
    image = File(bytes(100), [Part(b"iden", [(0, 1)], (1,))], properties, [(b"dimg", 1, [1])])
    with pytest.raises(errors.UndecodableImage):
        heif.read(image.encoded(), LIMITS.max_pixels)


def test_a_sequence_of_countless_frames_is_refused() -> None:
    """The number of frames is read from each table, where a single row may stand for all."""
    image = heif_files.animated(3)
    for table, field, value in ((b"stsz", 8, 2**31), (b"stco", 4, 2**31), (b"stsc", 12, 2**31)):
        changed = bytearray(image)
        struct.pack_into(">I", changed, changed.index(table) + 4 + field, value)
        with pytest.raises(errors.UndecodableImage, match=f"{tracks.MAX_FRAMES} frames"):
            heif.read(bytes(changed), LIMITS.max_pixels)


def test_bytes_after_the_last_box_are_skipped() -> None:
    """Phones append such bytes, which are no box."""
    image = HONEST["heic"]
    assert imaging.probe(image + b"\xff" * 1000, LIMITS) == imaging.probe(image, LIMITS)


@pytest.mark.parametrize("name", ["heic", "avif", "heic in tiles"])
def test_a_file_that_ends_early_is_refused_wherever_it_ends(name: str) -> None:
    """The error is named wherever the file ends."""
    image = HONEST[name]
    for end in {*range(12, len(image) - 1, 7), len(image) - 1}:
        with pytest.raises(errors.UndecodableImage):
            heif.read(image[:end], LIMITS.max_pixels)


def test_a_changed_file_ends_in_a_size_or_a_named_error() -> None:
    """Files with random changes give a size or a named error."""
    for image in mutated(1_500, 20260501):
        if imaging.format_of(image) in {"AVIF", "HEIF"}:
            with contextlib.suppress(errors.UndecodableImage, errors.TooManyPixels):
                assert heif.read(image, LIMITS.max_pixels).width >= 0


def test_two_colour_profiles_for_one_picture_are_refused() -> None:
    """A picture has at most one colour profile."""
    configuration, picture = heif_files.coded("HEIF", 64)
    profile = heif_files.box(b"colr", b"prof", bytes(100))
    properties = [configuration, heif_files.size(64, 64), heif_files.depth(), profile]
    one = File(picture, [Part(b"hvc1", [(0, len(picture))], (1, 2, 3, 4))], properties)
    assert heif.read(one.encoded(), LIMITS.max_pixels).width == 64
    two = File(picture, [Part(b"hvc1", [(0, len(picture))], (1, 2, 3, 4, 4))], properties)
    with pytest.raises(errors.UndecodableImage, match="colour profile"):
        heif.read(two.encoded(), LIMITS.max_pixels)


def test_countless_items_are_refused() -> None:
    """A file with more items than any encoder writes is refused."""
    parts = [Part(b"hvc1", [])] * (isobmff.MAX_ITEMS + 1)
    with pytest.raises(errors.UndecodableImage, match=str(isobmff.MAX_ITEMS)):
        heif.read(File(b"", parts, []).encoded(), LIMITS.max_pixels)

"""Images and thumbnails follow files that changed after the index was built."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from services.shared.errors import ImageGone, TooManyPixels
from services.upload.stored_images import StoredImages
from tests.support.pictures import plain_jpeg, png
from tests.unit.upload.conftest import Answer, Api, refused

_BOTH = pytest.mark.parametrize("kind", ["image", "thumbnail"])


@pytest.fixture(autouse=True, params=[0.0, 2.0], ids=["settled", "fresh"])
def _settled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test with files whose times are trusted, and with recent files, which are read."""
    made = partial(StoredImages, settled_seconds=request.param)
    monkeypatch.setattr("services.upload.app.StoredImages", made)


def _file(api: Api) -> Path:
    return api.images / api.items[1].path


async def _get(api: Api, kind: str, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.get(f"/v1/items/birds/{api.items[1].item_id}/{kind}", headers=named)


def _replace(file: Path, content: bytes) -> None:
    """Write other bytes with the same size, if possible, and the same modification time."""
    stat = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@_BOTH
async def test_an_unchanged_image_is_not_sent_again(api: Api, kind: str) -> None:
    """A tag, a list of tags, a weak tag and * give 304, by GET and by HEAD."""
    first = await _get(api, kind)
    tag = first.headers["ETag"]
    for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = await _get(api, kind, If_None_Match=known)
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
    path = f"/v1/items/birds/{api.items[1].item_id}/{kind}"
    head = await api.ask("HEAD", path)
    assert (head.status, head.body, head.headers["ETag"]) == (200, b"", tag)
    assert head.headers["Content-Length"] == str(len(first.body))
    assert (await api.ask("HEAD", path, headers={"If-None-Match": tag})).status == 304


async def test_the_tag_of_an_image_is_the_hash_of_what_is_sent(api: Api) -> None:
    """The ETag shows a caller whether the bytes are those that were indexed."""
    answer = await _get(api, "image")
    assert answer.headers["ETag"] == f'"{hashlib.sha256(answer.body).hexdigest()}"'


@_BOTH
async def test_a_replaced_photograph_has_a_tag_of_its_own(api: Api, kind: str) -> None:
    """The new file is sent, even when size and time are the same."""
    old = await _get(api, kind)
    before = _file(api).read_bytes()
    other = plain_jpeg((200, 10, 90), (300, 500))
    _replace(_file(api), other.ljust(len(before), b"\0"))
    new = await _get(api, kind, If_None_Match=old.headers["ETag"])
    assert new.status == 200
    assert new.body != old.body
    assert new.headers["ETag"] != old.headers["ETag"]
    again = await _get(api, kind, If_None_Match=new.headers["ETag"])
    assert again.status == 304
    _replace(_file(api), before)
    back = await _get(api, kind, If_None_Match=new.headers["ETag"])
    assert (back.body, back.headers["ETag"]) == (old.body, old.headers["ETag"])


def _link_out(file: Path) -> None:
    file.symlink_to("/etc/passwd")


def _link_loop(file: Path) -> None:
    file.symlink_to(file)


def _pipe(file: Path) -> None:
    os.mkfifo(file)


def _nothing(file: Path) -> None:
    assert not file.exists()


def _bytes(content: bytes) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(content)


_SPOILT: dict[str, Callable[[Path], object]] = {
    "page": _bytes(b"<html><script>alert(1)</script></html>"),
    "empty": _bytes(b""),
    "truncated": _bytes(b"\xff\xd8\xff\xe0"),
    "bomb": _bytes(png(60_000, 60_000, 8, 2, [])),
    "gone": _nothing,
    "folder": Path.mkdir,
    "pipe": _pipe,
    "link out": _link_out,
    "link loop": _link_loop,
}


@_BOTH
@pytest.mark.parametrize("spoil", _SPOILT.values(), ids=_SPOILT)
async def test_a_file_that_is_no_image_any_more_is_gone(
    api: Api, kind: str, spoil: Callable[[Path], object]
) -> None:
    """Such a file is never sent and never 304; the answer is 404 with advice."""
    tag = (await _get(api, kind)).headers["ETag"]
    _file(api).unlink()
    spoil(_file(api))
    for headers in ({}, {"If_None_Match": tag}, {"If_None_Match": "*"}):
        for _ in range(2):
            answer = await _get(api, kind, **headers)
            refused(answer, 404, "image_gone")
            assert "build the index again" in answer.json["detail"]
            assert str(api.images) not in answer.json["detail"]


@_BOTH
async def test_an_unreadable_image_is_gone(
    api: Api, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing permission and a failing disk give 404, and no internal error."""
    sound = Path.open

    def refuse(file: Path, *arguments: Any, **options: Any) -> Any:
        if file == _file(api):
            raise PermissionError(13, "Permission denied", str(file))
        return sound(file, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    answer = await _get(api, kind)
    refused(answer, 404, "image_gone")
    assert "Permission denied" in answer.json["detail"]


async def test_a_range_gets_the_whole_image(api: Api) -> None:
    """A part of the new file can't be appended to a part of the old one."""
    whole = await _get(api, "image")
    for headers in ({}, {"If_Range": whole.headers["ETag"]}, {"If_Range": '"other"'}):
        answer = await _get(api, "image", Range="bytes=10-19", **headers)
        assert (answer.status, answer.body) == (200, whole.body)


async def test_a_file_behind_a_followed_link_is_served(api: Api, tmp_path: Path) -> None:
    """Where the build has followed the link: the manifest names the real folder."""
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "one.jpg").write_bytes(plain_jpeg((1, 2, 3), (30, 20)))
    (api.images / "link").symlink_to(disk)
    item = replace(api.items[1], path="link/one.jpg")
    manifest = api.volume.manifest("birds", api.volume.active("birds"))
    images = StoredImages(None, thumbnail_pixels=32, thumbnail_cache_bytes=0)
    with pytest.raises(ImageGone):
        await images.image(manifest, item)
    followed = replace(manifest, linked_folders=(str(disk),))
    assert (await images.image(followed, item)).media_type == "image/jpeg"
    outside = replace(item, path="link/../secret.png")
    (tmp_path / "secret.png").write_bytes(plain_jpeg((1, 2, 3), (30, 20)))
    with pytest.raises(ImageGone):
        await images.image(followed, outside)


async def test_a_thumbnail_has_a_memory_limit(api: Api) -> None:
    """An image that upload can't decode within its memory is refused by name."""
    images = StoredImages(
        None, thumbnail_pixels=16, thumbnail_cache_bytes=0, max_thumbnail_memory=1000
    )
    version = api.volume.active("birds")
    with pytest.raises(TooManyPixels, match="MiB"):
        await images.thumbnail(api.volume.manifest("birds", version), api.items[1])

"""Images that are no longer in the folder: reported, and a stop where they are many."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from services.searcher.build.vanished import Vanished
from services.shared.errors import ImagesMissing
from tests.support.build_site import NAME, Site

MANY = 20


@pytest.fixture
def full(site: Site) -> Site:
    """A site with 23 pictures, 12 of them in a folder of their own."""
    for seed in range(10, 10 + MANY):
        site.draw(f"{'usb' if seed < 22 else 'many'}/{seed}.jpg", seed)
    return site


async def test_an_unmounted_disk_stops_the_build(full: Site) -> None:
    """More than a tenth is gone: the error counts by folder and names the flag."""
    before = await full.build()
    shutil.rmtree(full.folder / "usb")
    with pytest.raises(ImagesMissing) as raised:
        await full.build()
    assert "12 of 23 images are no longer there: usb/ (12)" in str(raised.value)
    assert "--allow-missing" in str(raised.value)
    assert full.volume.active(NAME) == before.manifest.version


async def test_an_empty_mount_point_stops_it_too(full: Site) -> None:
    """The folder is still there, and nothing in it."""
    await full.build()
    for file in (full.folder / "usb").iterdir():
        file.unlink()
    with pytest.raises(ImagesMissing, match=r"usb/ \(12\)"):
        await full.build()


async def test_rows_of_a_listing_whose_files_are_gone_stop_it(full: Site) -> None:
    """manifest.csv still names them: a missing file is no less missing."""
    files = sorted(full.folder.rglob("*.jpg"))
    rows = "".join(f"{file.relative_to(full.folder)}\n" for file in files)
    (full.folder / "manifest.csv").write_text(f"path\n{rows}")
    await full.build()
    shutil.rmtree(full.folder / "usb")
    with pytest.raises(ImagesMissing, match=r"usb/ \(12\)"):
        await full.build()


async def test_the_flag_goes_on_without_them(full: Site) -> None:
    """The report names what is gone, and their vectors are used when they come back."""
    await full.build()
    (full.folder / "usb").rename(full.folder.with_name("unmounted"))
    full.settings = full.settings.model_copy(update={"max_missing": 1.0})
    report = await full.build()
    assert report.published
    assert (report.vanished.count, report.vanished.total) == (12, 23)
    assert report.vanished.first[0] == "usb/10.jpg"
    full.folder.with_name("unmounted").rename(full.folder / "usb")
    again = await full.build()
    assert (again.manifest.count, again.embedded, again.vanished.count) == (23, 0, 0)


async def test_a_few_are_reported_and_no_more(full: Site) -> None:
    """A tenth may go: a version without them is published."""
    await full.build()
    (full.folder / "usb" / "10.jpg").unlink()
    (full.folder / "three.jpg").unlink()
    report = await full.build()
    assert report.published
    assert report.vanished.count == 2
    assert report.vanished.folders == (("", 1), ("usb/", 1))


async def test_a_moved_folder_has_not_vanished(full: Site) -> None:
    """The same bytes are elsewhere in the collection's folder."""
    await full.build()
    (full.folder / "usb").rename(full.folder / "disk")
    report = await full.build()
    assert (report.manifest.count, report.embedded, report.vanished.count) == (23, 0, 0)


async def test_a_folder_that_can_not_be_read_stops_the_build(
    full: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few images it held; on a first build it is only reported."""
    scandir = os.scandir

    def refuse(folder: Path) -> object:
        if folder.name == "red":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        first = await full.build()
        assert [(one.path, one.code) for one in first.failures] == [("red", "folder_unreadable")]
    await full.build()
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ImagesMissing, match="can't be read: red"):
        await full.build()


async def test_another_model_hides_no_loss(full: Site) -> None:
    """The version before is compared with the folder whatever its vectors are of."""
    await full.build()
    full.embedder.model_id = "other@0123456789ab/pixels/8"
    shutil.rmtree(full.folder / "usb")
    with pytest.raises(ImagesMissing):
        await full.build()


async def test_vectors_of_every_kept_version_are_used(full: Site) -> None:
    """A picture that was away for two versions is not embedded a second time."""
    full.settings = full.settings.model_copy(update={"max_missing": 1.0})
    await full.build()
    shutil.move(full.folder / "usb" / "10.jpg", full.folder.with_name("away.jpg"))
    await full.build()
    full.draw("more.jpg", 90)
    await full.build()
    shutil.move(full.folder.with_name("away.jpg"), full.folder / "usb" / "back.jpg")
    embedded = len(full.embedder.embedded)
    report = await full.build()
    assert (report.manifest.count, report.embedded) == (24, 0)
    # An image asks an embedder for its model.
    assert len(full.embedder.embedded) == embedded + 1


async def test_a_damaged_old_version_is_not_used(full: Site) -> None:
    """The build embeds a picture again if only a damaged version has the vector."""
    full.settings = full.settings.model_copy(update={"max_missing": 1.0})
    first = await full.build()
    shutil.move(full.folder / "three.jpg", full.folder.with_name("away.jpg"))
    await full.build()
    file = full.volume.directory(NAME, first.manifest.version) / "vectors.f32"
    file.chmod(0o644)
    file.write_bytes(bytes(file.stat().st_size))
    shutil.move(full.folder.with_name("away.jpg"), full.folder / "three.jpg")
    assert (await full.build()).embedded == 1


async def test_facts_of_another_folders_files_are_forgotten(full: Site, tmp_path: Path) -> None:
    """Files of equal path, size and time may hold other bytes in another folder."""
    await full.build()
    other = tmp_path / "other"
    shutil.copytree(full.folder, other)
    changed = other / "three.jpg"
    stat = changed.stat()
    changed.write_bytes((other / "red" / "one.jpg").read_bytes().ljust(stat.st_size, b"\0"))
    os.utime(changed, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    full.folder = other
    report = await full.build()
    assert report.published
    assert report.manifest.images_root == str(other)


@pytest.mark.parametrize(
    ("count", "share", "stops"),
    [(1, 0.1, False), (2, 0.1, True), (1, 0.0, False), (2, 0.0, True), (10, 1.0, False)],
)
def test_the_bound_is_a_share(count: int, share: float, *, stops: bool) -> None:
    """A single image may always go; with a share of 1 all may."""
    lost = Vanished(count=count, total=10)
    if stops:
        with pytest.raises(ImagesMissing):
            lost.require_few(share)
    else:
        lost.require_few(share)


async def test_a_damaged_catalogue_is_no_loss(full: Site) -> None:
    """The build replaces a damaged version, with which no file can be compared."""
    first = await full.build()
    items = full.volume.directory(NAME, first.manifest.version) / "items.sqlite"
    items.chmod(0o644)
    items.write_bytes(b"no database" * 1000)
    report = await full.build()
    assert report.published
    assert report.vanished == Vanished()

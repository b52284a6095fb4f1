"""The source lists the images of a folder."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from services.searcher.build.source.folder import FolderImages
from services.shared.errors import BuildFailed


def touch(folder: Path, *paths: str) -> None:
    """Create empty files."""
    for path in paths:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_files_are_found_at_any_depth(tmp_path: Path) -> None:
    """The first folder is the label; hidden files and folders are skipped."""
    touch(tmp_path, "top.jpg", "a/one.jpg", "a/b/c/two.jpg", ".hidden.jpg", "a/.git/three.jpg")
    labelled = {(image.path, image.label) for image in FolderImages(tmp_path)}
    assert labelled == {("top.jpg", ""), ("a/one.jpg", "a"), ("a/b/c/two.jpg", "a")}


def found(folder: Path, *, follow_symlinks: bool = False) -> tuple[set[str], dict[str, str]]:
    """Return the paths of a folder's images, and why others are left out."""
    images = list(FolderImages(folder, follow_symlinks=follow_symlinks))
    faults = {image.path: image.fault[1] for image in images if image.fault is not None}
    return {image.path for image in images if image.fault is None}, faults


def test_links_are_followed_to_files_only(tmp_path: Path) -> None:
    """A link to a folder is reported with the option that follows it, as one to nowhere is."""
    touch(tmp_path, "a/one.jpg")
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    (tmp_path / "two.jpg").symlink_to(tmp_path / "a" / "one.jpg")
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "itself.jpg").symlink_to(tmp_path / "itself.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    paths, faults = found(tmp_path)
    assert paths == {"a/one.jpg", "two.jpg"}
    assert faults.keys() == {"a/round", "nowhere.jpg", "itself.jpg"}
    assert "--follow-symlinks" in faults["a/round"]
    assert faults["nowhere.jpg"] == "a link to nothing"


def test_folders_behind_links_are_read_on_request(tmp_path: Path) -> None:
    """Each real folder once: a link round in circles, and a second link, are reported."""
    pictures, disk = tmp_path / "pictures", tmp_path / "disk"
    touch(pictures, "a/one.jpg")
    touch(disk, "two.jpg", "deep/three.jpg")
    (pictures / "disk").symlink_to(disk)
    (pictures / "again").symlink_to(disk)
    (pictures / "round").symlink_to(pictures)
    (disk / "back").symlink_to(pictures / "a")
    images = FolderImages(pictures, follow_symlinks=True)
    labels = {image.path: image.label for image in images if image.fault is None}
    assert labels == {"a/one.jpg": "a", "again/two.jpg": "again", "again/deep/three.jpg": "again"}
    assert set(found(pictures, follow_symlinks=True)[1]) == {"disk", "round", "again/back"}
    assert images.linked == [disk]
    assert images.locate("again/two.jpg") == disk / "two.jpg"
    assert FolderImages(pictures).locate("again/two.jpg") is None


def test_a_listing_may_name_files_behind_links(tmp_path: Path) -> None:
    """Where links are followed; `..` leads out of a linked folder as little as out of another."""
    pictures, disk = tmp_path / "pictures", tmp_path / "disk"
    touch(disk, "two.jpg")
    touch(tmp_path, "secret.jpg")
    pictures.mkdir()
    (pictures / "disk").symlink_to(disk)
    (pictures / "manifest.csv").write_text("path\ndisk/two.jpg\ndisk/../secret.jpg\n")
    images = FolderImages(pictures, follow_symlinks=True)
    assert len(list(images)) == 2
    assert images.locate("disk/two.jpg") == disk / "two.jpg"
    assert images.locate("disk/../secret.jpg") is None


def test_what_systems_put_into_folders_is_left_out(tmp_path: Path) -> None:
    """Folders of NAS devices, archives and bins, and those that hold .nomedia."""
    touch(
        tmp_path, "a/one.jpg", "a/@eaDir/one.jpg", "#recycle/x.jpg", "$RECYCLE.BIN/x.jpg",
        "a/__MACOSX/x.jpg", "lost+found/x.jpg", "System Volume Information/x.jpg",
        "music/.nomedia", "music/cover.jpg", "music/deep/cover.jpg", "a/Thumbs.db",
        "desktop.ini", ".nomedia", ".hidden/x.jpg",
    )  # fmt: skip
    assert found(tmp_path) == ({"a/one.jpg"}, {})


def test_an_ignore_file_is_that_of_git(tmp_path: Path) -> None:
    """Patterns, folders, anchors and exceptions, in the file of the collection's folder."""
    touch(tmp_path, "keep.png", "a/drop.png", "a/one.jpg", "raw/x.jpg", "a/raw/y.jpg", "b/z.jpg")
    (tmp_path / ".simileignore").write_text("\ufeff# no PNG\n*.png\n!keep.png\n/raw/\nb\n\n")
    assert found(tmp_path)[0] == {"keep.png", "a/one.jpg", "a/raw/y.jpg"}


@pytest.mark.parametrize("kind", ["pipe", "device", "large"])
def test_an_ignore_file_that_does_not_end_is_refused(tmp_path: Path, kind: str) -> None:
    """A pipe, a device and a file of more than 64 KiB are refused, and not read to their end."""
    file = tmp_path / ".simileignore"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    else:
        file.write_text("x\n" * 40_000)
    with pytest.raises(BuildFailed, match=r"\.simileignore (is not a regular|has more than)"):
        list(FolderImages(tmp_path))


def test_a_comment_may_have_any_number_of_stars(tmp_path: Path) -> None:
    """The limit of stars is for patterns."""
    touch(tmp_path, "a.jpg", "b_1_2_3.png")
    (tmp_path / ".simileignore").write_text("# * a * b * c * d *****\nb_*_*_*\n**********x\n")
    assert found(tmp_path)[0] == {"a.jpg"}


@pytest.mark.parametrize("line", ["!", "[z-a]", "*a*a*a*b", "**/*a*a*a*a*b", "**/a/**/b/**/c/**/d"])
def test_a_line_that_is_no_pattern_is_named(tmp_path: Path, line: str) -> None:
    """File and line, before anything is read."""
    (tmp_path / ".simileignore").write_text(f"*.png\n{line}\n")
    with pytest.raises(BuildFailed, match=r"\.simileignore, line 2"):
        list(FolderImages(tmp_path))
    (tmp_path / ".simileignore").write_bytes(b"\xff\xfe")
    with pytest.raises(BuildFailed, match=r"\.simileignore can't be read as UTF-8"):
        list(FolderImages(tmp_path))


def test_a_folder_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    """A folder whose path is too long is reported, so that its images do not vanish silently."""
    touch(tmp_path, "open/one.jpg")
    name, deepest = "x" * 250, os.open(tmp_path, os.O_RDONLY)
    for _ in range(17):
        os.mkdir(name, dir_fd=deepest)
        above, deepest = deepest, os.open(name, os.O_RDONLY, dir_fd=deepest)
        os.close(above)
    os.close(deepest)
    faults = {image.path: image.fault for image in FolderImages(tmp_path)}
    assert faults.pop("open/one.jpg") is None
    (fault,) = faults.values()
    assert fault == ("folder_unreadable", "the folder can't be read: File name too long")


def test_a_large_folder_is_never_held(tmp_path: Path) -> None:
    """Files are read one at a time, also when all are in a single folder."""
    touch(tmp_path, *(f"{number:04}-{'x' * 100}.jpg" for number in range(3_000)))
    tracemalloc.start()
    assert sum(1 for _ in FolderImages(tmp_path)) == 3_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150_000

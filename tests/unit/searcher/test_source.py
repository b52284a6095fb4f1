"""The source lists the images of a folder."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

from services.searcher.build.source.folder import list_images


def touch(folder: Path, *paths: str) -> None:
    """Create empty files."""
    for path in paths:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_files_are_found_at_any_depth(tmp_path: Path) -> None:
    """The first folder is the label; hidden files and folders are skipped."""
    touch(tmp_path, "top.jpg", "a/one.jpg", "a/b/c/two.jpg", ".hidden.jpg", "a/.git/three.jpg")
    found = {(image.path, image.label) for image in list_images(tmp_path)}
    assert found == {("top.jpg", ""), ("a/one.jpg", "a"), ("a/b/c/two.jpg", "a")}


def test_links_are_followed_to_files_only(tmp_path: Path) -> None:
    """A link to a folder could be a loop, so it is reported, as is a broken link."""
    touch(tmp_path, "a/one.jpg")
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    (tmp_path / "two.jpg").symlink_to(tmp_path / "a" / "one.jpg")
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "itself.jpg").symlink_to(tmp_path / "itself.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    found = {image.path: image.fault for image in list_images(tmp_path)}
    assert {path for path, fault in found.items() if fault is None} == {"a/one.jpg", "two.jpg"}
    assert {path for path, fault in found.items() if fault} == {
        "a/round", "nowhere.jpg", "itself.jpg",
    }  # fmt: skip


def test_a_folder_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    """A folder whose path is too long is reported, so that its images do not vanish silently."""
    touch(tmp_path, "open/one.jpg")
    name, deepest = "x" * 250, os.open(tmp_path, os.O_RDONLY)
    for _ in range(17):
        os.mkdir(name, dir_fd=deepest)
        above, deepest = deepest, os.open(name, os.O_RDONLY, dir_fd=deepest)
        os.close(above)
    os.close(deepest)
    found = {image.path: image.fault for image in list_images(tmp_path)}
    assert found.pop("open/one.jpg") is None
    (fault,) = found.values()
    assert fault == ("unknown_item", "the folder can't be read: File name too long")


def test_a_large_folder_is_never_held(tmp_path: Path) -> None:
    """Files are read one at a time, also when all are in a single folder."""
    touch(tmp_path, *(f"{number:04}-{'x' * 100}.jpg" for number in range(3_000)))
    tracemalloc.start()
    assert sum(1 for _ in list_images(tmp_path)) == 3_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150_000

"""docs/collections.md says what the code does with a folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from services.local import folder_watch
from services.searcher.build.source import ignoring
from services.searcher.build.source.folder import FolderImages
from services.searcher.settings import IndexSettings
from services.shared.volume.names import name_of
from tools import reference

PAGE: Final = (reference.DOCS / "collections.md").read_text(encoding="utf-8")


BLOCKS: Final = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def _example(kind: str, start: str) -> str:
    """Return the page's only block of that kind that starts so."""
    (block,) = [text for name, text in BLOCKS if name == kind and text.startswith(start)]
    return str(block)


def _row(start: str) -> set[str]:
    """Return the names in code of the table's row that starts so."""
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| {start}")]
    return set(re.findall(r"`([^`]+)`", row))


def test_the_names_that_are_left_out_are_those_of_the_code() -> None:
    """The table lists each of them, and no other."""
    assert {name.lower() for name in _row("folders of NAS")} == ignoring.FOLDERS
    assert {name.lower() for name in _row("files of systems")} == ignoring.FILES
    assert _row("sub-folders that hold") == {ignoring.NO_MEDIA}
    assert _row("what `.simileignore`") == {ignoring.IGNORE_FILE}


def test_the_manifest_is_read_as_described(tmp_path: Path) -> None:
    """Its columns are label and attribute; quotes hold a comma."""
    (tmp_path / "manifest.csv").write_text(_example("csv", "path"))
    found = {image.path: (image.label, dict(image.attributes)) for image in FolderImages(tmp_path)}
    assert found == {
        "cats/tom.jpg": ("cat", {"author": "Ann"}),
        "dogs/rex, old.jpg": ("dog", {"author": "Bo"}),
    }


def test_the_ignore_file_leaves_out_what_it_says(tmp_path: Path) -> None:
    """Scans and the top folder raw, but not the exception."""
    ignore = _example("", "#")
    (tmp_path / ".simileignore").write_text(ignore)
    for name in ("a.tif", "cover.tif", "raw/x.jpg", "a/raw/y.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert {image.path for image in FolderImages(tmp_path)} == {"cover.tif", "a/raw/y.jpg"}


def test_figures_and_names_are_those_of_the_code() -> None:
    """A tenth, ten minutes, and the names that are made of two folders."""
    assert IndexSettings().max_missing == 0.1
    assert "more than a tenth" in PAGE
    assert folder_watch.RESCAN_MS == 10 * 60 * 1000
    assert "every ten minutes" in PAGE
    for folder, name in re.findall(r"`([^`]+)` becomes\s+`([^`]+)`", PAGE):
        assert name_of(folder) == name

"""Finds the files of a folder at any depth, with the name of the first sub-folder as label."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from services.searcher.build.source.ignoring import NO_MEDIA, Ignored
from services.searcher.build.source.source_image import SourceImage
from services.shared.errors import FolderUnreadable, UnknownItem

_LINK: Final = (
    "a link to a folder, which is not followed: --follow-symlinks (SIMILE_INDEX_FOLLOW_SYMLINKS) "
    "follows it"
)
_NOWHERE: Final = "a link to nothing"
_AGAIN: Final = "a link to a folder that is read already"


class Walk:
    """Yields every file of a folder, as the disk lists it: a million files are never held.

    Attributes:
        linked: the real folders that followed links led to, after the iteration.
    """

    def __init__(self, folder: Path, *, follow_symlinks: bool) -> None:
        """Raises BuildFailed for an ignore file that can't be used."""
        self.linked: list[Path] = []
        self._folder = folder
        self._follows = follow_symlinks
        self._ignored = Ignored.of(folder)
        self._links: list[str] = []
        self._seen: set[tuple[int, int]] = set()

    def __iter__(self) -> Iterator[SourceImage]:
        """Yield files, and the links and folders that can't be read, each with a fault."""
        yield from self._tree("")
        # Links come last and in order: a folder that is reached twice keeps its own path and label.
        while self._links:
            self._links.sort(reverse=True)
            yield from self._behind(self._links.pop())

    def _behind(self, link: str) -> Iterator[SourceImage]:
        target = (self._folder / link).resolve()
        if self._follows and self._is_new(target):
            self.linked.append(target)
            yield from self._tree(link, known=True)
        else:
            why = _AGAIN if self._follows else _LINK
            yield SourceImage(link, "", {}, (UnknownItem.code, why))

    def _tree(self, start: str, *, known: bool = False) -> Iterator[SourceImage]:
        """Yield the files below a folder; `known`: the folder has been counted as seen."""
        waiting = [start]
        while waiting:
            inside = waiting.pop()
            try:
                if self._follows and not known and not self._is_new(self._folder / inside):
                    continue
                known = False
                yield from self._entries(inside, waiting)
            except OSError as error:
                fault = (FolderUnreadable.code, f"the folder can't be read: {error.strerror}")
                yield SourceImage(inside or ".", _label(inside), {}, fault)

    def _entries(self, inside: str, waiting: list[str]) -> Iterator[SourceImage]:
        """Yield a folder's files, and append its folders to `waiting`. Raises OSError."""
        folder, label = self._folder / inside, _label(inside)
        if inside and (folder / NO_MEDIA).exists():
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                path = f"{inside}/{entry.name}" if inside else entry.name
                if _is(entry.is_dir):
                    if self._ignored.folder(entry.name, path):
                        continue
                    # A link to a folder is a folder too.
                    (self._links if _is(entry.is_symlink) else waiting).append(path)
                elif self._ignored.file(entry.name, path):
                    continue
                elif _is(entry.is_file):
                    yield SourceImage(path, label, {})
                elif _is(entry.is_symlink):
                    yield SourceImage(path, "", {}, (UnknownItem.code, _NOWHERE))

    def _is_new(self, folder: Path) -> bool:
        """Count a folder as seen; return whether it was not. Raises OSError."""
        stat = folder.stat()
        identity = (stat.st_dev, stat.st_ino)
        if identity in self._seen:
            return False
        self._seen.add(identity)
        return True


def _label(inside: str) -> str:
    return inside.partition("/")[0]


def _is(asked: Callable[[], bool]) -> bool:
    """Return the answer; False where the file system gives none."""
    try:
        return asked()
    except OSError:
        return False

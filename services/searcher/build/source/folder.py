"""Where a collection's images come from: a folder, labelled by sub-folder or by manifest.csv."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath

from services.searcher.build.source.listing import LISTING, read_listing
from services.searcher.build.source.source_image import SourceImage
from services.searcher.build.source.walk import Walk
from services.shared.errors import BuildFailed, UnknownItem


class FolderImages:
    """Lists the images of a folder: those of manifest.csv if there is one, else every file.

    Attributes:
        folder: the folder, resolved.
        linked: the real folders that followed links led to, after the images were listed.
    """

    def __init__(self, folder: Path, *, follow_symlinks: bool = False) -> None:
        self.folder = folder
        self.linked: Sequence[Path] = ()
        self._follows = follow_symlinks

    def __iter__(self) -> Iterator[SourceImage]:
        """Yield the images in any order; whether a file is an image shows when it is read.

        Raises BuildFailed for a listing or an ignore file that can't be used.
        """
        listing = self.folder / LISTING
        images = self._listed(listing) if listing.is_file() else self._walked()
        yield from map(_encodable, images)

    def _walked(self) -> Iterator[SourceImage]:
        walk = Walk(self.folder, follow_symlinks=self._follows)
        yield from walk
        self.linked = walk.linked

    def _listed(self, listing: Path) -> Iterator[SourceImage]:
        seen: dict[PurePosixPath, None] = {}
        for image in read_listing(listing):
            if self._follows:
                seen.update(dict.fromkeys(PurePosixPath(image.path).parents))
            yield image
        links = (self.folder / parent for parent in seen)
        self.linked = [one.resolve() for one in links if one.is_symlink() and one.is_dir()]

    def locate(self, path: str) -> Path | None:
        """Return the file of that relative path; None where it is missing or leads outside."""
        try:
            found = (self.folder / path).resolve()
        except ValueError:  # a NUL in the listing
            return None
        inside = any(found.is_relative_to(one) for one in (self.folder.resolve(), *self.linked))
        return found if inside and found.is_file() else None


def identity(folder: Path) -> tuple[int, int]:
    """Return which folder it is: not the same after a mount came or went. Raises BuildFailed."""
    try:
        stat = folder.stat()
    except OSError as error:
        message = f"{folder} can't be read: {error.strerror}"
        raise BuildFailed(message) from error
    return stat.st_dev, stat.st_ino


def require_same(folder: Path, before: tuple[int, int]) -> None:
    """Raise BuildFailed where the folder is gone, or another: a lost mount looks empty."""
    if identity(folder) != before:
        message = (
            f"{folder} was replaced while it was read, as when a mount comes or goes: nothing was "
            "published; run the build again"
        )
        raise BuildFailed(message)


def _encodable(image: SourceImage) -> SourceImage:
    """Return the image, with a fault for a name that neither catalogue nor answer could hold."""
    try:
        "".join((image.path, image.label, *chain(*image.attributes.items()))).encode()
    except UnicodeEncodeError:
        readable = image.path.encode(errors="backslashreplace").decode()
        fault = (UnknownItem.code, "its name, label or an attribute is not UTF-8")
        return SourceImage(readable, "", {}, fault)
    return image

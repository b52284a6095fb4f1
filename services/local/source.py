"""Finds the collection that `simile up` or `simile index build` works on, and its images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.local import sample
from services.searcher.build import disk_errors
from services.searcher.build.build_lock import locked
from services.searcher.build.shown_build import shown_on_volume
from services.searcher.progress import Progress
from services.shared.errors import (
    IndexCorrupt,
    InvalidSettings,
    MalformedRequest,
    NoIndex,
    OtherFolder,
    UnknownCollection,
)
from services.shared.volume import names
from services.shared.volume.build_progress import BUILDING
from services.shared.volume.volume import Volume

SAMPLE: Final = "sample"


@dataclass(frozen=True, slots=True)
class Source:
    """Names a collection, the folder of its images, and whether those are to be drawn."""

    collection: str
    folder: Path
    drawn: bool = False

    def draw(self, volume: Volume, progress: Progress) -> None:
        """Draw the sample images, if this is the sample and they are not there yet. Blocking.

        Raises BuildInProgress while another process draws them, BuildFailed where they can't be
        written.
        """
        if not self.drawn or self.folder.is_dir():
            return
        home = volume.home(self.collection)
        try:
            home.mkdir(parents=True, exist_ok=True)
            with locked(home), shown_on_volume(home / BUILDING, progress) as shown:
                shown.begin("drawing", sample.COUNT)
                sample.draw_sample(self.folder, on_drawn=shown.advance)
        except OSError as error:
            raise disk_errors.explained(home, error) from error

    def hidden(self, volume: Volume) -> str | None:
        """Return the drawn sample's name where it is on the volume and is not this source."""
        if self.drawn:
            return None
        try:
            manifest = volume.manifest(SAMPLE, volume.active(SAMPLE))
        except (UnknownCollection, NoIndex, IndexCorrupt, OSError):
            return None  # a build names what is wrong with the volume
        drawn = Path(manifest.images_root).resolve() == _drawn_folder(volume.root).resolve()
        return SAMPLE if drawn and self.collection != SAMPLE else None


def source_of(root: Path, images: Path | None, collection: str | None) -> Source:
    """Return the collection of the folder given, or of the sample that is drawn on first use.

    Raises InvalidSettings for what can't be a collection's name, OtherFolder where the name is made
    of the folder's and the collection of that name holds the images of another folder.
    """
    volume = Volume(root)
    if collection is not None:
        try:
            volume.home(collection)
        except MalformedRequest as error:
            raise InvalidSettings(str(error)) from error
    if images is None:
        source = Source(collection or SAMPLE, _drawn_folder(root), drawn=True)
    else:
        source = Source(collection or collection_name(images), images.resolve())
    if collection is None:
        _require_own(volume, source)
    return source


def collection_name(folder: Path) -> str:
    """Make a collection's name of the folder's: lower case, other characters become `-`."""
    return names.name_of(folder.resolve().name) or "images"


def _require_own(volume: Volume, source: Source) -> None:
    """Raise OtherFolder where the collection of that name holds another folder's images."""
    name, folder = source.collection, source.folder
    try:
        held = Path(volume.manifest(name, volume.active(name)).images_root)
    except (UnknownCollection, NoIndex, IndexCorrupt, OSError):
        return  # a build names what is wrong with the volume
    if held.resolve() != folder.resolve():
        other = names.name_of(f"{folder.parent.name}-{name}") or f"{name}-2"
        message = (
            f"the collection {name!r} holds the images of {held}, not of {folder}: name another "
            f"collection (--collection {other}), or, where the folder was moved, the same one "
            f"(--collection {name})"
        )
        raise OtherFolder(message)


def _drawn_folder(root: Path) -> Path:
    return root / ".sample" / SAMPLE

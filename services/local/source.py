"""Finds the collection that `simile up` or `simile index build` works on, and its images."""

from __future__ import annotations

import re
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
    UnknownCollection,
)
from services.shared.volume.build_progress import BUILDING
from services.shared.volume.volume import Volume

SAMPLE: Final = "sample"
_MAX_NAME: Final = 63


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

    Raises InvalidSettings for what can't be a collection's name.
    """
    if collection is not None:
        try:
            Volume(root).home(collection)
        except MalformedRequest as error:
            raise InvalidSettings(str(error)) from error
    if images is None:
        return Source(collection or SAMPLE, _drawn_folder(root), drawn=True)
    return Source(collection or collection_name(images), images.resolve())


def collection_name(folder: Path) -> str:
    """Make a collection's name of the folder's: lower case, other characters become `-`."""
    name = re.sub(r"[^a-z0-9_-]+", "-", folder.resolve().name.lower()).strip("-_")
    return name[:_MAX_NAME] or "images"


def _drawn_folder(root: Path) -> Path:
    return root / ".sample" / SAMPLE

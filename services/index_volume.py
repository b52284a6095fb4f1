"""Finds what the commands work on: the volume of the indexes, and files that pictures go into."""

from __future__ import annotations

from pathlib import Path

import click

from services.shared.collection import Volume
from services.shared.errors import InvalidSettings
from services.shared.settings import SharedSettings, load


def volume_of(root: Path | None) -> Volume:
    """Return the volume at `root`, by default that of the settings. Raises InvalidSettings."""
    volume = Volume(load(SharedSettings, root=root).root)
    require_folder(volume.root)
    return volume


def require_folder(root: Path) -> None:
    """Raise InvalidSettings where the root of a volume is, or would be, in what is no folder."""
    existing = next(place for place in (root, *root.absolute().parents) if place.exists())
    if not existing.is_dir():
        message = f"{existing} is no folder: --root (SIMILE_ROOT) names the folder of the indexes"
        raise InvalidSettings(message)


class PictureFile(click.Path):
    """The path of a picture to write: its folder exists, and its suffix names a known format."""

    name = "file"

    def __init__(self, *suffixes: str) -> None:
        super().__init__(dir_okay=False, path_type=Path)
        self._suffixes = suffixes

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path:
        """Check before the work, which may take hours. Raises BadParameter."""
        path = Path(str(super().convert(value, param, ctx)))  # type: ignore[arg-type]
        if path.suffix.lower() not in self._suffixes:
            self.fail(f"{path} does not end in {' or '.join(self._suffixes)}", param, ctx)
        if not path.parent.is_dir():
            self.fail(f"there is no folder {path.parent}", param, ctx)
        return path

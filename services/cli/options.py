"""Defines the options and arguments that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import click

from services.shared.errors import InvalidSettings
from services.shared.settings import SharedSettings, load
from services.shared.volume.volume import Volume

PICTURE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp")

root_option = click.option(
    "--root", type=click.Path(path_type=Path), help="The volume of the indexes (SIMILE_ROOT)."
)


class ImagesFolder(click.Path):
    """Takes an existing folder, and gives its Path.

    `make run IMAGES=~/Pictures` reaches the command with its tilde in all shells but one.
    """

    def __init__(self) -> None:
        super().__init__(exists=True, file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 (click's own types)
        """Return the path. Fails for what is no folder."""
        path = os.fspath(value)
        # A folder whose real name has a ~ or $ in it goes first.
        if not os.path.exists(path):  # noqa: PTH110
            path = os.path.expandvars(os.path.expanduser(path))  # noqa: PTH111
        return super().convert(path, param, ctx)


class OutputFile(click.Path):
    """The path of a file to write: its folder exists, and its suffix names a known format."""

    name = "file"

    def __init__(self, *suffixes: str) -> None:
        """Args: suffixes, one of which must end the path; none allows all."""
        super().__init__(dir_okay=False, path_type=Path)
        self._suffixes = suffixes

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Path:
        """Return the path. Raises BadParameter."""
        path = Path(str(super().convert(value, param, ctx)))  # type: ignore[arg-type]
        if self._suffixes and path.suffix.lower() not in self._suffixes:
            self.fail(f"{path} does not end in {' or '.join(self._suffixes)}", param, ctx)
        if not path.parent.is_dir():
            self.fail(f"there is no folder {path.parent}", param, ctx)
        return path


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

"""Finds the volume of the indexes that a command works on."""

from __future__ import annotations

from pathlib import Path

from services.shared.errors import InvalidSettings
from services.shared.settings import SharedSettings, load
from services.shared.volume.volume import Volume


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

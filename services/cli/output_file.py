"""Checks where a command is to write before it begins its work, which may take hours."""

from __future__ import annotations

from pathlib import Path

import click


class OutputFile(click.Path):
    """The path of a file to write: its folder exists, and its suffix names a known format."""

    name = "file"

    def __init__(self, *suffixes: str) -> None:
        """suffixes: one of them ends the path; without any, all are good."""
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

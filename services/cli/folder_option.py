"""Reads a command's folder of images, with `~` and `$HOME` where a shell left them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click


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

"""Defines the options and arguments that several commands share."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click

from services.cli.tables import echo
from services.clients.api import DEFAULT_URL, simile_url
from services.shared.errors import InvalidSettings, SimileError
from services.shared.settings import SharedSettings, load
from services.shared.volume.volume import Volume

PICTURE_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp")

root_option = click.option(
    "--root", type=click.Path(path_type=Path), help="The volume of the indexes (SIMILE_ROOT)."
)

_follow_symlinks = click.option(
    "--follow-symlinks",
    is_flag=True,
    help="Read the folders that symbolic links lead to (SIMILE_INDEX_FOLLOW_SYMLINKS).",
)
_allow_missing = click.option(
    "--allow-missing",
    is_flag=True,
    help="Go on where many images are no longer there, as after a disk was unmounted "
    "(SIMILE_INDEX_MAX_MISSING=1).",
)


def folder_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options for the folder of a collection; `folder_settings` takes their values."""
    return _follow_symlinks(_allow_missing(command))


def folder_settings(*, follow_symlinks: bool, allow_missing: bool) -> Mapping[str, object]:
    """Return the index settings that the options set; None leaves the environment's."""
    return {
        "follow_symlinks": follow_symlinks or None,
        "max_missing": 1.0 if allow_missing else None,
    }


def _url(context: click.Context, option: click.Parameter, value: str | None) -> str:
    """Return the address given, or that of the environment. Raises BadParameter."""
    try:
        return simile_url(value)
    except InvalidSettings as error:
        raise click.BadParameter(str(error), context, option) from error


url_option = click.option(
    "--url", callback=_url, help=f"Simile's address (SIMILE_URL); default: {DEFAULT_URL}."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")


def examples(*commands: str) -> str:
    """Return the epilog of a command: its examples, one per line."""
    return "\n  ".join(("\b\nExamples:", *commands))


def _complete_collection(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Return the collections of the volume that begin like this, for a shell."""
    del parameter
    with contextlib.suppress(SimileError, OSError):
        volume = volume_of(context.params.get("root"))
        return [name for name in volume.collections() if name.startswith(incomplete)]
    return []


def _complete_version(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Return the versions of the collection that begin like this, for a shell."""
    del parameter
    with contextlib.suppress(SimileError, OSError):
        found = volume_of(context.params.get("root")).versions(context.params["collection"])
        return [version for version in found if version.startswith(incomplete)]
    return []


version_argument = click.argument("version", shell_complete=_complete_version)
optional_version_argument = click.argument(
    "version", required=False, shell_complete=_complete_version
)
collection_argument = click.argument("collection", shell_complete=_complete_collection)


def confirm(question: str, *, yes: bool) -> None:
    """Ask on the terminal, unless `yes`. Raises Abort for a no, UsageError without an answer."""
    try:
        if not yes:
            click.confirm(question, abort=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        echo("", err=True)  # ends the line of the question
        message = f"{question} Give --yes where no terminal can confirm it"
        raise click.UsageError(message) from None


def is_given(context: click.Context, name: str) -> bool:
    """Return whether the command line gives that option, whatever its value."""
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def require_with(context: click.Context, needed: str, *names: str) -> None:
    """Raise UsageError for a given option that has no effect without the parameter `needed`.

    Args:
        context: of the command.
        needed: the name of the parameter that the others need.
        names: the names of options.
    """
    shown = {one.name: _shown(one) for one in context.command.params}
    for name in names:
        if is_given(context, name) and not context.params[needed]:
            message = f"{shown[name]} has no effect without {shown[needed]}: add it"
            raise click.UsageError(message, context)


def _shown(parameter: click.Parameter) -> str:
    """Return an option as it is written, or the name of an argument as in the usage line."""
    longest = max(parameter.opts, key=len)
    return longest if isinstance(parameter, click.Option) else longest.upper()


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

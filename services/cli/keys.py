"""`simile keys`: creates API keys, and checks the file with their hashes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from services.cli.tables import add_row, console, echo, new_table
from services.shared import lifecycle

_SCOPES: Final = ("read", "write", "admin")
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def keys() -> None:
    """Create and check API keys."""


@keys.command()
@click.option("--name", required=True, help="The name of the key's owner, for logs and metrics.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(_SCOPES),
    multiple=True,
    default=("read",),
    show_default="read",
    help="A scope of the key; may be repeated.",
)
@lifecycle.exit_on_error
def new(*, name: str, scopes: tuple[str, ...]) -> None:
    """Create a key, and print it with its line for SIMILE_UPLOAD_API_KEYS_FILE.

    The key is not stored, and can't be shown again.
    """
    from services.upload.security.api_keys import Scope, new_key

    secret, key = new_key(name, map(Scope, scopes))
    echo(f"key:  {secret}")
    echo(f"line: {key.line}")


@keys.command()
@click.argument("file", type=_FILE)
@lifecycle.exit_on_error
def check(*, file: Path) -> None:
    """List the keys of FILE, or show its errors."""
    from services.upload.security.api_keys import read_keys

    known = read_keys(file.read_bytes())
    table = new_table("name", "scopes", "sha256", title=str(file))
    for key in known:
        add_row(table, key.name, ", ".join(sorted(key.scopes)), f"{key.digest.hex()[:12]}…")
    console().print(table)

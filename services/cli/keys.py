"""`simile keys`: creates API keys, and checks the file with their hashes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from services.cli.options import examples, json_option
from services.cli.tables import add_row, console, echo, echo_json, new_table
from services.shared import lifecycle

if TYPE_CHECKING:
    from services.upload.security.api_keys import ApiKey

_SCOPES: Final = ("read", "write", "admin")
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(epilog=examples("simile keys new --name shop", "simile keys check keys.txt"))
def keys() -> None:
    """Create and check API keys."""


@keys.command(
    epilog=examples(
        "simile keys new --name shop", "simile keys new --name ops --scope read --scope admin"
    )
)
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


@keys.command(epilog=examples("simile keys check keys.txt", "simile keys check keys.txt --json"))
@click.argument("file", type=_FILE)
@json_option
@lifecycle.exit_on_error
def check(*, file: Path, as_json: bool) -> None:
    """List the keys of FILE, or show its errors."""
    from services.upload.security.api_keys import read_keys

    known = read_keys(file.read_bytes())
    if as_json:
        echo_json([_facts(key) for key in known])
        return
    table = new_table("name", "scopes", "sha256", title=str(file))
    for key in known:
        add_row(table, key.name, ", ".join(sorted(key.scopes)), f"{key.digest.hex()[:12]}…")
    console().print(table)


def _facts(key: ApiKey) -> dict[str, object]:
    return {"name": key.name, "scopes": sorted(key.scopes), "sha256": key.digest.hex()}

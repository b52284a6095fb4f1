"""Makes the options of `simile query` from the table of the API's parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from services.shared.contracts.parameters import Parameter, Route, of_route

IMAGE_URL: Final = "image_url"
"""The parameter that is an argument of the command."""

_VECTOR: Final = "vector"
_FILE: Final = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)

_Command = TypeVar("_Command", bound=Callable[..., Any])


def search_options(command: _Command) -> _Command:
    """Decorate a command with an option for each parameter of a search."""
    for parameter in reversed(option_parameters()):
        command = _option(parameter)(command)
    return command


def option_parameters() -> list[Parameter]:
    """Return the parameters of a search that are options of the command."""
    return [one for one in of_route(Route.SEARCH) if one.name != IMAGE_URL]


def option_name(parameter: str) -> str:
    """Return the option of a parameter: --max-distance for max_distance, -k for k."""
    return f"--{parameter.replace('_', '-')}" if len(parameter) > 1 else f"-{parameter}"


def given_parameters(values: Mapping[str, object]) -> dict[str, str]:
    """Return the parameters that options give, as text.

    Raises UsageError for a text that is not UTF-8, which a request can't carry.
    """
    given = {name: _text(value) for name, value in values.items() if value not in {None, False}}
    for name, text in given.items():
        if not is_utf8(text):
            message = f"{option_name(name)} is not UTF-8 text"
            raise click.UsageError(message)
    return given


def is_utf8(text: str) -> bool:
    """Return True for an argument whose bytes are UTF-8; Python keeps others as surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def require_route(parameters: Mapping[str, str], route: Route) -> None:
    """Raise UsageError for a parameter that searches by several images do not take."""
    known = {parameter.name for parameter in of_route(route)}
    for name in parameters:
        if name not in known:
            message = f"{option_name(name)} goes with a single image"
            raise click.UsageError(message)


def _text(value: object) -> str:
    return "true" if value is True else str(value)


def _option(parameter: Parameter) -> Callable[[_Command], _Command]:
    if parameter.name == _VECTOR:
        text = f"{parameter.description} FILE holds a JSON list; - reads it from standard input."
        return click.option("--vector", type=_FILE, help=text.replace("`", ""))
    schema = parameter.schema
    kind = _kind(schema)
    names: Sequence[str] = (option_name(parameter.name), parameter.name)
    # Ranges and defaults of numbers stand beside the text.
    accepted = "" if kind is not None else f" Takes {parameter.accepts}."
    text = f"{parameter.description}{accepted}".replace("`", "")
    default = schema.get("default")
    return click.option(
        *names,
        type=kind,
        is_flag=schema.get("type") == "boolean",
        help=text if default is None else f"{text} Default: {default}.",
    )


def _kind(schema: Mapping[str, Any]) -> click.IntRange | click.FloatRange | None:
    """Return the type of a number's option; None for text."""
    match schema.get("type"):
        case "integer":
            return click.IntRange(schema["minimum"], schema["maximum"])
        case "number":
            return click.FloatRange(schema["minimum"], schema["maximum"])
        case _:
            return None

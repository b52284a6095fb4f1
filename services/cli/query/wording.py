"""Words the errors of the API for the command line: options in place of parameters."""

from __future__ import annotations

import re
from typing import Final

from services.cli.query.parameters import IMAGE_URL, option_name
from services.shared.contracts.parameters import PARAMETERS
from services.shared.errors import SimileError, UrlNotAllowed, from_code

_NAMES: Final = {parameter.name for parameter in PARAMETERS} - {IMAGE_URL}
_IN_URL: Final = re.compile(r"\?(\w+)=(?!\w)")
_FIRST: Final = re.compile(r"\w+")
_ROUTE: Final = re.compile(r"\bGET (/[\w/.]+)")


def for_command_line(error: SimileError, url: str) -> SimileError:
    """Return the error of the Simile at `url` with a message that names options."""
    return from_code(error.code, reworded(error.code, str(error), url))


def reworded(code: str, detail: str, url: str) -> str:
    """Return the detail of an error with options for parameters, and URLs for routes."""
    if code == UrlNotAllowed.code:
        reason = detail.partition(";")[0].replace(IMAGE_URL, "URLs")
        return (
            f"the Simile at {url} does not fetch this address ({reason}): send the image itself, "
            "as in `curl --location URL | simile query -`"
        )
    words = _IN_URL.sub(lambda found: option_name(found[1]), detail)
    words = _ROUTE.sub(lambda found: f"{url}{found[1]}", words)
    first = _FIRST.match(words)
    if first is not None and first[0] in _NAMES:
        words = option_name(first[0]) + words.removeprefix(first[0])
    for name in sorted(name for name in _NAMES if "_" in name):
        words = re.sub(rf"\b{name}\b", option_name(name), words)
    return words.replace(IMAGE_URL, "the URL")

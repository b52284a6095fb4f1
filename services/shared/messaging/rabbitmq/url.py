"""Checks RabbitMQ's address before anything connects to it, and never repeats a password."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

_EXAMPLE: Final = "amqp://user:password@host:5672/"
_SCHEMES: Final = frozenset({"amqp", "amqps"})
_ENCODED: Final = "%2F for /, %3F for ?, %23 for #, %5B for [, %25 for %"
_BARE_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def require_amqp_url(url: str) -> None:
    """Check that a text is an AMQP URL.

    Raises:
        ValueError: the text is no AMQP URL; the message says why, without the password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in _SCHEMES:
        message = f"it must begin with amqp:// or amqps://, like {_EXAMPLE}"
        raise ValueError(message)
    user_info, at, _ = rest.rpartition("@")
    # A vhost has no @ unless encoded, so all before the last @ is user and password.
    if at and (re.search(r"[/?#\[\]\s]", user_info) or _BARE_PERCENT.search(user_info)):
        message = (
            "its user or password holds a character that has to be percent-encoded in a URL: "
            f"{_ENCODED}"
        )
        raise ValueError(message)
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        message = f"its host or port can't be read; it is to be like {_EXAMPLE}"
        raise ValueError(message) from None
    if not host:
        message = f"it names no host; it is to be like {_EXAMPLE}"
        raise ValueError(message)

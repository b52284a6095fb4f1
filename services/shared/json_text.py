"""Reads JSON from other programs; any fault in it is a ValueError."""

from __future__ import annotations

import json
from typing import Any


def read_json(text: str | bytes) -> Any:  # noqa: ANN401 (any JSON)
    """Parse JSON.

    Raises:
        ValueError: it is no JSON, or lists or objects in it are nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        message = "lists or objects in it are nested too deeply"
        raise ValueError(message) from None

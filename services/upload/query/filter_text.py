"""Parses a filter in a caller's JSON to the filter that the searcher reads."""

from __future__ import annotations

import json
from typing import Any, Final

from services.shared.contracts import Filter
from services.shared.contracts.parameters import MAX_FILTER_BYTES
from services.shared.errors import MalformedRequest

_MAX_VALUES: Final = 100
_EXAMPLE: Final = '{"label": ["cat", "dog"], "attributes": {"author": "Ann"}}'


def parse_filter(text: str) -> Filter | None:
    """Return the filter; None if the JSON selects everything.

    Raises MalformedRequest with the reason.
    """
    size = len(text.encode(errors="replace"))
    _require(size <= MAX_FILTER_BYTES, f"has more than {MAX_FILTER_BYTES} bytes")
    try:
        given = json.loads(text, object_pairs_hook=_members)
    except (ValueError, RecursionError):
        given = None
    _require(isinstance(given, dict), "is not a JSON object")
    unknown = sorted(given.keys() - {"label", "attributes"})
    _require(
        not unknown,
        f"has an unknown member {''.join(unknown[:1])[:40]!a}; it takes: attributes, label",
    )
    named = given.get("attributes", {})
    _require(isinstance(named, dict), "has attributes that are not a JSON object")
    labels = _values("label", given["label"]) if "label" in given else ()
    attributes = {
        _text("attribute name", name): _values(f"attribute {name[:40]!a}", values)
        for name, values in named.items()
    }
    count = sum(map(len, (labels, *attributes.values())))
    _require(count <= _MAX_VALUES, f"has more than {_MAX_VALUES} values")
    return Filter(labels, attributes) if count else None


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    # JSON permits repeated names, which parsers interpret differently.
    _require(len(members) == len(pairs), "has a member twice")
    return members


def _values(what: str, given: Any) -> tuple[str, ...]:  # noqa: ANN401 (any JSON)
    """Return a text or a list of texts as a tuple without repetitions."""
    values = [given] if isinstance(given, str) else given
    _require(isinstance(values, list) and values != [], f"has no text or list of texts as {what}")
    return tuple(dict.fromkeys(_text(what, value) for value in values))


def _text(what: str, value: Any) -> str:  # noqa: ANN401 (any JSON)
    _require(isinstance(value, str), f"has no text as {what}")
    text = str(value)
    # JSON can escape a lone surrogate, which no message can contain.
    _require(not any("\ud800" <= sign <= "\udfff" for sign in text), f"has a broken {what}")
    return text


def _require(condition: bool, fault: str) -> None:  # noqa: FBT001 (an assertion's condition)
    if not condition:
        message = f"filter {fault}; it looks like {_EXAMPLE}"
        raise MalformedRequest(message)

"""Writes the generated blocks of values.yaml, and reads the comment of each value."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any, Final

import yaml

from tools.chart.settings import Setting

_BLOCK: Final = re.compile(
    r"(?P<start>^(?P<indent> *)# generated: settings-(?P<section>[a-z]+)\n).*?(?P<end>^ *# end$)",
    re.DOTALL | re.MULTILINE,
)
_KEY: Final = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z][A-Za-z0-9]*):")
_WIDTH: Final = 100

Path = tuple[str, ...]
"""The keys of a value, from the top."""


def with_settings(text: str, found: Iterable[Setting]) -> str:
    """Return values.yaml with new generated blocks; hand-written parts stay unchanged."""
    by_hand = yaml.safe_load(_BLOCK.sub("", text))
    settings = list(found)

    def updated(block: re.Match[str]) -> str:
        section = block["section"]
        taken = by_hand if section == "shared" else by_hand[section]
        lines = [
            line
            for setting in settings
            if setting.section == section and setting.value_name not in taken
            for line in _entry(setting, block["indent"])
        ]
        return "".join([block["start"], *(f"{line}\n" for line in lines), block["end"]])

    return _BLOCK.sub(updated, text)


def _entry(setting: Setting, indent: str) -> list[str]:
    prefix = f"{indent}# "
    comment = textwrap.wrap(
        setting.comment, _WIDTH, initial_indent=prefix, subsequent_indent=prefix
    )
    return [*comment, f"{indent}{setting.value_name}: null"]


def comments(text: str) -> dict[Path, str]:
    """Return each value's comment: the lines right above its key, with the same indentation."""
    found: dict[Path, str] = {}
    above: list[str] = []
    open_keys: list[tuple[int, str]] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            if not stripped.startswith(("# generated:", "# end")):
                above.append(stripped.removeprefix("#").strip())
            continue
        key = _KEY.match(line)
        if key is not None:
            indent = len(key["indent"])
            while open_keys and open_keys[-1][0] >= indent:
                open_keys.pop()
            open_keys.append((indent, key["key"]))
            if above:
                found[tuple(name for _, name in open_keys)] = " ".join(above)
        above = []
    return found


def leaves(values: Any, schema: dict[str, Any], definitions: dict[str, Any]) -> Iterator[Path]:
    """Yield the paths of the values that users set: those without properties of their own."""
    for key, part in schema["properties"].items():
        inner = resolve(part, definitions)
        if key not in values:
            continue
        if is_section(inner):
            yield from ((key, *path) for path in leaves(values[key], inner, definitions))
        else:
            yield (key,)


def resolve(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Resolve a reference, described or not."""
    while "$ref" in schema or "allOf" in schema:
        reference = schema if "$ref" in schema else schema["allOf"][0]
        schema = definitions[reference["$ref"].rpartition("/")[2]]
    return schema


def is_section(schema: dict[str, Any]) -> bool:
    """Return whether the schema groups values; requests and limits count as a single value."""
    return "properties" in schema and "requests" not in schema["properties"]

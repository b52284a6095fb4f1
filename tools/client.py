"""The generated modules of clients/python, most of them from services/upload/openapi.json.

`models` holds the answers as pydantic models, `problems` an exception for each error code, and
`client` is the asynchronous client with its `async` and `await` taken out. `python -m tools.client`
writes them, as does `make docs`; a test finds drift.

The models accept what newer servers may answer: further fields, other search methods and codes,
and values beyond today's bounds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tools import openapi

PACKAGE: Final = (
    Path(__file__).resolve().parents[1] / "clients" / "python" / "src" / "simile_client"
)

_ASYNCHRONOUS: Final = PACKAGE / "async_client.py"

_REF: Final = "#/components/schemas/"
_SENT: Final = ("Filter",)
"""Schemas of requests for which the client has a model."""

_CONSTRAINTS: Final = frozenset(
    {"minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern", "enum"}
    | {"format", "const", "examples"}
)
_HEADER: Final = '"""{}; `python -m tools.client` writes this module."""\n\n'
_OPTIONS: Final = (
    "--output-model-type=pydantic_v2.BaseModel",
    "--target-python-version=3.11",
    "--use-annotated",
    "--use-standard-collections",
    "--use-union-operator",
    "--use-schema-description",
    "--use-attribute-docstrings",
    "--enable-faux-immutability",
    "--extra-fields=allow",
    "--disable-timestamp",
    "--formatters=ruff-format",
)


_BLOCKING: Final = {
    '"""The asynchronous client, for asyncio.': '"""The blocking client, written by `make docs`.',
    "import asyncio\n": "import time\n",
    "import AsyncIterator, Callable, Iterable, Sequence\n": (
        "import Callable, Iterable, Iterator, Sequence\n"
    ),
    "await asyncio.sleep": "time.sleep",
    "await asyncio.wait_for(self._receive(call, form, step), step.left_seconds)": (
        "self._receive(call, form, step)"
    ),
    "async for": "for",
    "aiter_bytes": "iter_bytes",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "aclose": "close",
    "async def": "def",
    "async with": "with",
    "await ": "",
    "tasks may share": "threads may share",
    "AsyncIterator": "Iterator",
    "AsyncClient": "Client",
    "AsyncSimile": "Simile",
}
"""The texts that the blocking client has in place of those of the asynchronous client."""


def modules() -> dict[Path, str]:
    """Return the text of each generated module."""
    described = json.loads(openapi.FILE.read_text(encoding="utf-8"))
    return {
        PACKAGE / "models.py": models(described),
        PACKAGE / "problems.py": _formatted(problems(described)),
        PACKAGE / "client.py": _formatted(blocking(_ASYNCHRONOUS.read_text(encoding="utf-8"))),
    }


def blocking(text: str) -> str:
    """Return the module of the blocking client, made from that of the asynchronous client."""
    for asynchronous, replacement in _BLOCKING.items():
        text = text.replace(asynchronous, replacement)
    return text


def models(described: dict[str, Any]) -> str:
    """Return the module of models, made by datamodel-codegen."""
    schemas = described["components"]["schemas"]
    names = [*_SENT, "Problem", *_answers(described)]
    kept = {name: _relaxed(schemas[name], schemas) for name in _reachable(names, schemas)}
    reduced = {**described, "paths": {}, "components": {"schemas": kept}}
    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "openapi.json", Path(folder) / "models.py"
        source.write_text(json.dumps(reduced), encoding="utf-8")
        command = [str(Path(sys.executable).with_name("datamodel-codegen")), *_OPTIONS]
        files = [f"--input={source}", "--input-file-type=openapi", f"--output={target}"]
        subprocess.run([*command, *files], check=True)
        text = target.read_text(encoding="utf-8")
    return _HEADER.format("The answers of Simile's API") + text[text.index("from __future__") :]


def problems(described: dict[str, Any]) -> str:
    """Return the module with an exception for each error code."""
    head = (
        "from __future__ import annotations\n\n"
        "from typing import Final\n\n"
        "from simile_client.errors import ApiError\n\n\n"
    )
    found = sorted(_problems(described))
    classes = "".join(_exception(code, meaning) for code, meaning in found)
    listed = "".join(f'    "{code}": {_class_name(code)},\n' for code, _ in found)
    table = f"BY_CODE: Final[dict[str, type[ApiError]]] = {{\n{listed}}}\n"
    return _HEADER.format("The errors of Simile's API, by code") + head + classes + table


def _formatted(text: str) -> str:
    command = [str(Path(sys.executable).with_name("ruff")), "format", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return done.stdout


def _problems(described: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for response in described["components"]["responses"].values():
        examples = response["content"]["application/problem+json"]["examples"]
        for code, example in examples.items():
            yield code, example["value"]["detail"]


def _exception(code: str, meaning: str) -> str:
    return f'class {_class_name(code)}(ApiError):\n    """{meaning}"""\n\n\n'


def _class_name(code: str) -> str:
    return "".join(word.capitalize() for word in code.split("_"))


def _answers(described: dict[str, Any]) -> Iterator[str]:
    """Yield the names of the schemas of successful answers in JSON."""
    for methods in described["paths"].values():
        for operation in methods.values():
            content = operation["responses"].get("200", {}).get("content", {})
            schema = content.get("application/json", {}).get("schema")
            if schema is not None and operation["tags"] != ["page"]:
                yield schema["$ref"].removeprefix(_REF)


def _reachable(names: list[str], schemas: dict[str, Any]) -> list[str]:
    """Return the schemas of objects behind these names, in the order of the description."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(_references(schemas[name]))
    return [name for name in schemas if name in found and _is_object(schemas[name])]


def _references(schema: object) -> Iterator[str]:
    match schema:
        case {"$ref": reference}:
            yield reference.removeprefix(_REF)
        case dict():
            for inner in schema.values():
                yield from _references(inner)
        case list():
            for inner in schema:
                yield from _references(inner)


def _is_object(schema: dict[str, Any]) -> bool:
    """Return True for a schema that becomes a class; the others are written where they are used."""
    return "properties" in schema


def _relaxed(schema: Any, schemas: dict[str, Any]) -> Any:  # noqa: ANN401 (any part of JSON)
    """Return the schema without constraints, and with the schemas of texts in their places."""
    match schema:
        case {"$ref": reference} if not _is_object(named := schemas[reference.removeprefix(_REF)]):
            return _relaxed({**named, **{k: v for k, v in schema.items() if k != "$ref"}}, schemas)
        case {"properties": properties}:
            fields = {name: _relaxed(inner, schemas) for name, inner in properties.items()}
            kept = {key: schema[key] for key in ("description", "required") if key in schema}
            return {"type": "object", **kept, "properties": fields}
        case dict():
            return {
                key: _relaxed(inner, schemas)
                for key, inner in schema.items()
                if key not in _CONSTRAINTS and not (key == "required" and "type" in schema)
            }
        case list():
            return [_relaxed(inner, schemas) for inner in schema]
    return schema


def main() -> None:
    """Write every generated module that is not current."""
    for path, text in modules().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

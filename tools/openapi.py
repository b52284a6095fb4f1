"""Generates the parts of services/upload/openapi.json that the code determines.

These are the parameters of every route, from services/shared/contracts/parameters.py, and the error
codes of every problem. `python -m tools.reference` writes them; a test detects drift. The rest of
the file is hand-written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from services.shared import errors
from services.shared.contracts.parameters import PARAMETERS, Parameter, Route
from services.shared.errors import SimileError
from services.upload.http.problems import problem_body

FILE: Final = Path(__file__).resolve().parents[1] / "services" / "upload" / "openapi.json"

_FORM: Final = "multipart/form-data"
_JSON: Final = "application/json"
_BATCH_LIMIT: Final = 32
_SCHEMAS: Final = "#/components/schemas/"
_CORRELATION_ID: Final = "5f0c6a8e2b9d4c1fa3e7d80b6c5a4f21"
_PROBLEM: Final = "Problem"


def render(text: str) -> str:
    """Return the API's description with its parameters and error codes replaced."""
    described = json.loads(text)
    schemas = described["components"]["schemas"]
    for route in Route:
        for operation in described["paths"][route].values():
            own = [parameter for parameter in PARAMETERS if route in parameter.routes]
            _write_query(operation, own)
            content = operation.get("requestBody", {}).get("content", {})
            for media_type in content.keys() & {_FORM, _JSON}:
                name = content[media_type]["schema"]["$ref"].removeprefix(_SCHEMAS)
                listed = [one for one in own if one.in_form or media_type == _JSON]
                _write_body(schemas[name], listed, route)
    _write_codes(described["components"])
    return json.dumps(described, indent=2, ensure_ascii=False) + "\n"


def caller_errors() -> list[type[SimileError]]:
    """Return the errors that a caller of the HTTP API can get."""
    found = errors.by_code().values()
    return [cls for cls in found if cls is errors.Internal or cls.status != errors.Internal.status]


def _write_codes(components: dict[str, Any]) -> None:
    """Write the error codes: all of them into a schema, and into each problem an example each."""
    found = sorted(caller_errors(), key=lambda cls: cls.code)
    components["schemas"]["Code"]["enum"] = [cls.code for cls in found]
    for name, response in components["responses"].items():
        status = int(name.removeprefix(_PROBLEM))
        content = response["content"]["application/problem+json"]
        content["examples"] = {cls.code: _example(cls) for cls in found if cls.status == status}


def _example(cls: type[SimileError]) -> dict[str, Any]:
    meaning = str(cls.__doc__).split("\n\n", maxsplit=1)[0]
    return {"summary": cls.title, "value": problem_body(cls(meaning), _CORRELATION_ID)}


def _write_query(operation: dict[str, Any], own: list[Parameter]) -> None:
    """Put the parameters of the query string between those of the path and the headers."""
    written = operation["parameters"]
    path = [one for one in written if one.get("in") == "path"]
    headers = [one for one in written if one.get("in") not in {"path", "query"}]
    operation["parameters"] = [*path, *_query_parameters(own), *headers]


def _query_parameters(own: list[Parameter]) -> Iterator[dict[str, Any]]:
    for parameter in own:
        if parameter.in_query:
            example = {} if parameter.example is None else {"example": parameter.example}
            yield {
                "name": parameter.name,
                "in": "query",
                "description": parameter.description,
                "schema": parameter.schema,
                **example,
            }


def _write_body(schema: dict[str, Any], own: list[Parameter], route: Route) -> None:
    """Put the parameters after the image among the fields of a form or of a JSON object."""
    fields = {"image": schema["properties"]["image"]}
    for parameter in own:
        fields[parameter.name] = _described(parameter, route)
    schema["properties"] = fields


def _described(parameter: Parameter, route: Route) -> dict[str, Any]:
    """Return the schema of a field; a batch may repeat those that are only in forms."""
    schema = dict(parameter.form_schema or parameter.schema)
    if route is Route.BATCH and not parameter.in_query:
        schema = {"type": "array", "items": schema, "maxItems": _BATCH_LIMIT}
    return {"description": parameter.description, **schema}

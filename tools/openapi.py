"""The parameters in services/upload/openapi.json, from services/shared/contracts/parameters.py.

`python -m tools.reference` writes them; a test finds drift. All else in the file is hand-written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from services.shared.contracts.parameters import PARAMETERS, Parameter, Route

FILE: Final = Path(__file__).resolve().parents[1] / "services" / "upload" / "openapi.json"

_FORM: Final = "multipart/form-data"
_BATCH_LIMIT: Final = 32


def render(text: str) -> str:
    """Return the description of the API with the parameters of every route written again."""
    described = json.loads(text)
    for route in Route:
        for operation in described["paths"][route].values():
            own = [parameter for parameter in PARAMETERS if route in parameter.routes]
            _write_query(operation, own)
            form = operation.get("requestBody", {}).get("content", {}).get(_FORM)
            if form is not None:
                _write_form(form["schema"], own, route)
    return json.dumps(described, indent=2, ensure_ascii=False) + "\n"


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


def _write_form(schema: dict[str, Any], own: list[Parameter], route: Route) -> None:
    """Put the parameters after the image among the fields of a form."""
    fields = {"image": schema["properties"]["image"]}
    for parameter in own:
        fields[parameter.name] = dict(parameter.form_schema or parameter.schema)
        if not parameter.in_query:
            fields[parameter.name] = _described(parameter, route)
    schema["properties"] = fields


def _described(parameter: Parameter, route: Route) -> dict[str, Any]:
    """Return the schema of a field that is in forms alone; a batch may have several."""
    if route is Route.BATCH:
        several = {"type": "array", "items": parameter.schema, "maxItems": _BATCH_LIMIT}
        return {"description": parameter.description, **several}
    return {"description": parameter.description, **parameter.schema}

"""The shape of openapi.json suits the generators of clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from services.shared import errors
from tests.unit.upload.conftest import OPENAPI

OPERATIONS = [operation for methods in OPENAPI["paths"].values() for operation in methods.values()]
EACH = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one["operationId"])
SCHEMAS = OPENAPI["components"]["schemas"]
NESTED = ("properties", "items", "oneOf", "additionalProperties")


def _contents(operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the contents of an operation's body and of its answers, problems included."""
    yield from operation.get("requestBody", {}).get("content", {}).values()
    for response in operation["responses"].values():
        name = response.get("$ref", "").rpartition("/")[2]
        found = OPENAPI["components"]["responses"][name] if name else response
        yield from found.get("content", {}).values()


def _inner(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the schemas written inside this one, at any depth."""
    for keyword in NESTED:
        match keyword, schema.get(keyword):
            case "properties", dict() as named:
                found = list(named.values())
            case "oneOf", list() as found:
                pass
            case _, dict() as one:
                found = [one]
            case _:
                found = []
        for one in found:
            yield one
            yield from _inner(one)


@EACH
def test_every_body_and_answer_is_a_named_schema(operation: dict[str, Any]) -> None:
    """Generators name a class after each schema; only bytes and text have no name."""
    for content in _contents(operation):
        schema = content["schema"]
        assert "$ref" in schema or schema["type"] == "string"


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_holds_no_unnamed_object(name: str) -> None:
    """Objects inside a schema, and alternatives, are schemas of their own with a description."""
    schema = SCHEMAS[name]
    assert schema["description"]
    for inner in _inner(schema):
        assert not {"properties", "allOf", "anyOf"} & inner.keys()
    for one in [schema, *_inner(schema)]:
        for alternative in one.get("oneOf", []):
            assert "$ref" in alternative or alternative["type"] != "object"


def test_operations_have_names_and_summaries() -> None:
    """Each operation has its own operationId, from which generators make a function's name."""
    names = [operation["operationId"] for operation in OPERATIONS]
    assert len(set(names)) == len(names)
    assert all(operation["summary"] for operation in OPERATIONS)


@EACH
def test_every_json_answer_has_an_example_that_fits(operation: dict[str, Any]) -> None:
    """Examples of answers and of problems have the described schema."""
    for content in _contents({**operation, "requestBody": {}}):
        if "$ref" not in content["schema"] or content["schema"]["$ref"].endswith("Document"):
            continue
        written = content.get("examples", {"": {"value": content.get("example")}})
        schema = {**content["schema"], "components": OPENAPI["components"]}
        for example in written.values():
            Draft202012Validator(schema).validate(example["value"])


def test_every_problem_lists_its_codes() -> None:
    """Each status has an example for each of its codes."""
    listed = {
        code: int(name.removeprefix("Problem"))
        for name, response in OPENAPI["components"]["responses"].items()
        for code in response["content"]["application/problem+json"]["examples"]
    }
    known = errors.by_code()
    assert {code: known[code].status for code in listed} == listed
    assert set(listed) | {"method_not_allowed"} == set(SCHEMAS["Code"]["enum"])

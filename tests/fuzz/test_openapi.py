"""Fuzzes the API with requests generated from openapi.json.

No answer is a 5xx, and each has a status, headers, type and body as described.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import checks

from services.upload.settings import UploadSettings
from tests.support.pictures import plain_jpeg
from tests.support.threaded import threaded
from tests.unit.upload.conftest import OPENAPI, running_api

AnyCase = schemathesis.Case[Any]

IN_PLACE = {"image_url", "vector"}
"""Members that take the place of an image."""

PICTURE = plain_jpeg((40, 80, 160))


def _with_contents(described: dict[str, Any]) -> dict[str, Any]:
    """Replace each parameter that is JSON in a string by that JSON's schema.

    From a plain string schema hardly any generated text would be JSON.
    """
    described = copy.deepcopy(described)
    for methods in described["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                inner = parameter.get("schema", {}).get("contentSchema")
                if inner is not None:
                    parameter["content"] = {"application/json": {"schema": inner}}
                    del parameter["schema"], parameter["example"]
    return described


SCHEMA = schemathesis.openapi.from_dict(_with_contents(OPENAPI))

# The server runs in a thread of this process: its use of `random` is not that of a strategy.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")

# Derandomized: a failure must come from the change under test.
BOUNDED = settings(
    max_examples=20,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
]
POSITIVE = [check for check in CHECKS if check is not checks.negative_data_rejection]


@dataclass(frozen=True, slots=True)
class Served:
    """A running API, and the names of its collections and items."""

    url: str
    item_id: str


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve the API with stand-ins behind it."""
    with threaded(running_api(tmp_path_factory.mktemp("fuzz"), UploadSettings(port=0))) as api:
        yield Served(api.url, api.items[0].item_id)


def _with_long_timeout(case: AnyCase) -> None:
    """Set a long Request-Timeout: a caller that waits only a moment rightly gets 504."""
    headers = case.headers
    if headers is None:
        return
    try:
        patience = float(headers["Request-Timeout"])
    except (KeyError, ValueError):
        return  # missing or invalid, so it is to be refused
    if patience > 0:
        headers["Request-Timeout"] = "30"


@SCHEMA.parametrize()
@BOUNDED
def test_anything(case: AnyCase, served: Served) -> None:
    """Generated requests, valid and invalid, get answers as described."""
    _with_long_timeout(case)
    # Unknown headers are allowed: proxies add theirs.
    invented = "x-schemathesis-unknown-property" in (case.headers or {})
    # A member of a JSON body may be a text, as in a form, or null.
    lenient = invented or case.media_type == "application/json"
    case.call_and_validate(base_url=served.url, checks=POSITIVE if lenient else CHECKS)


@SCHEMA.include(path_regex="^/v1/(search|embed|items|collections/)").parametrize()
@BOUNDED
def test_existing_names(case: AnyCase, served: Served) -> None:
    """Requests with existing names and a real image reach more of the code."""
    _with_long_timeout(case)
    names = {"name": "birds", "collection": "birds", "item_id": served.item_id}
    case.path_parameters = {name: names[name] for name in case.path_parameters or {}}
    if case.query and "collection" in case.query:
        case.query["collection"] = "birds"
    if case.media_type == "multipart/form-data" and isinstance(case.body, dict):
        several = isinstance(case.body.get("image"), list)
        body: dict[str, Any] = case.body
        body["image"] = [PICTURE] if several else PICTURE
    elif case.media_type == "application/json":
        if isinstance(case.body, dict):
            given: dict[str, Any] = case.body
            kept = {name: one for name, one in given.items() if name not in IN_PLACE}
            case.body = {**kept, "image": base64.b64encode(PICTURE).decode()}
    elif case.media_type is not None:
        case.body = PICTURE
    case.call_and_validate(base_url=served.url, checks=POSITIVE)

"""The HTTP server uses private attributes of aiohttp, and checks at start that they exist."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from services.shared.errors import Internal
from services.upload.http.server import require_private_attributes

HANDLER = {"_loop": None, "_request_count": 0, "_waiter": None}
SERVER: dict[str, object] = {"_kwargs": {}}


def test_the_attributes_that_exist_are_accepted() -> None:
    """A handler and a server with every attribute pass."""
    require_private_attributes(SimpleNamespace(**HANDLER), SimpleNamespace(**SERVER))


@pytest.mark.parametrize("missing", [*HANDLER, *SERVER])
def test_a_missing_attribute_is_named(missing: str) -> None:
    """A release of aiohttp without an attribute is refused with the name of the attribute."""
    handler, server = (
        SimpleNamespace(**{name: value for name, value in attributes.items() if name != missing})
        for attributes in (HANDLER, SERVER)
    )
    with pytest.raises(Internal, match=f"has no {missing}: install"):
        require_private_attributes(handler, server)

"""Fixtures of every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.rabbitmq import Node, require_server


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """The session's RabbitMQ node."""
    require_server()
    node = Node(tmp_path_factory.mktemp("rabbitmq"))
    try:
        node.start()
        yield node
    finally:
        node.close()

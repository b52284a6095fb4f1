"""Provides a running embedder to the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.running_embedder import RunningEmbedder, running_embedder


@pytest.fixture
async def embedder() -> AsyncIterator[RunningEmbedder]:
    """Run an embedder with one worker and batches of up to four; it ends without an error."""
    async with running_embedder() as embedder:
        yield embedder
        embedder.model.gate.set()
        embedder.stop.set()
        await embedder.running

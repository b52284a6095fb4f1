"""A running upload service for the tests of the client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.upload.settings import UploadSettings
from tests.unit.upload.conftest import Api, running_api


@pytest.fixture
def upload_settings() -> UploadSettings:
    """Each search goes the whole way."""
    return UploadSettings(port=0, embedding_cache_bytes=0)


@pytest.fixture
async def api(tmp_path: Path, upload_settings: UploadSettings) -> AsyncIterator[Api]:
    """The service, with stand-ins for embedder and searcher."""
    async with running_api(tmp_path, upload_settings) as running:
        yield running

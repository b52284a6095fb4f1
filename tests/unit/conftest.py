"""Fixtures of unit tests of several areas."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from services.searcher.build import version_writer
from services.searcher.build.tuning import tune
from services.searcher.settings import IndexSettings
from services.shared.messaging import topology
from services.shared.messaging.memory import MemoryBroker
from services.shared.volume.volume import Volume
from tests.support.build_site import Site
from tests.support.fake_embedder import fake_embedder


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """Return a site with two labelled pictures and one without a label."""
    # A child process for each Annoy file would take most of the tests' time.
    monkeypatch.setattr(version_writer, "tune", partial(tune, in_children=False))
    broker = MemoryBroker()
    await broker.start(topology.ALL)
    async with fake_embedder(broker) as embedder:
        folder = tmp_path / "images"
        settings = IndexSettings(answer_timeout_seconds=5, trees=5)
        site = Site(folder, Volume(tmp_path / "root"), broker, embedder, settings)
        site.draw("red/one.jpg", 1)
        site.draw("blue/deep/two.jpg", 2)
        site.draw("three.jpg", 3)
        yield site
    await broker.close()

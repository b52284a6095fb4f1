"""Tests damage to the volume under load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable

import pytest

from services.shared.volume.manifest import VECTORS
from tests.support.checker import Load
from tests.support.system import COLLECTION, System

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_damaged_version_activated_under_load_changes_no_answer(
    system: System, load: Callable[..., Load]
) -> None:
    """Searchers refuse the version, report that, and continue with the version before."""
    home = system.volume.home(COLLECTION)
    sound = system.volume.active(COLLECTION)
    damaged = f"{sound[:-8]}00000bad"
    folder = system.volume.directory(COLLECTION, damaged)
    shutil.copytree(system.volume.directory(COLLECTION, sound), folder)
    for name in ("manifest.json", VECTORS):
        (folder / name).chmod(0o644)
    facts = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**facts, "version": damaged}))
    with (folder / VECTORS).open("r+b") as vectors:
        vectors.seek(1000)
        vectors.write(bytes(64))
    asked = load()

    def refused() -> bool:
        return all(
            system.processes[name].total("simile_searcher_refused_versions_total") > 0
            for name in ("searcher-1", "searcher-2")
        )

    async with asked.running():
        await asked.answered()
        (home / "ACTIVE.next").write_text(f"{damaged}\n")
        (home / "ACTIVE.next").replace(home / "ACTIVE")
        try:
            await asked.until(refused)
            await asked.answered(40)
        finally:
            system.volume.activate(COLLECTION, sound)
    asked.judge()
    shutil.rmtree(folder)

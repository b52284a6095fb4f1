"""Kills services, builder and broker at random under load: the long form of these tests."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from services.local.sample import draw_sample
from tests.support.checker import CONNECTION, Load, Outcome
from tests.support.rabbitmq import Node
from tests.support.running import Process
from tests.support.system import System

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.long]

VICTIMS: Final = {
    "upload-1": 2, "upload-2": 2, "embedder-1": 3, "embedder-2": 3,
    "searcher-1": 3, "searcher-2": 3, "builder": 3, "broker": 1,
}  # fmt: skip
"""The victims with their relative frequencies."""

FAILURES: Final = (
    CONNECTION, "broker_unavailable", "reply_queue_lost", "unroutable", "overloaded",
    "deadline_exceeded", "no_embedder", "no_searcher",
)  # fmt: skip
PER_SECOND: Final = 25.0


class Builder:
    """Builds one collection after another; a killed build is run again until it ends."""

    def __init__(self, system: System, images: Path) -> None:
        self.complete = 0
        self.runs = 0
        self._system = system
        self._images = images
        self._count = len(list(images.rglob("*.jpg")))
        self._process: Process | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Build until `stop`, then finish the current build."""
        while not stop.is_set():
            name = f"built-{self.complete}"
            killed = True
            while killed:
                self.runs += 1
                self._process = self._system.start_build(self._images, name)
                code = await asyncio.to_thread(self._process.popen.wait)
                killed = code < 0
                assert killed or code == 0, self._process.log.read_text()[-2000:]
            volume = self._system.volume
            assert volume.manifest(name, volume.active(name)).count == self._count
            self.complete += 1

    async def kill(self) -> None:
        """Kill the running build."""
        if self._process is not None:
            await asyncio.to_thread(self._process.kill)


async def test_random_kills_under_load_lose_nothing(
    system: System,
    node: Node,
    load: Callable[..., Load],
    seen: Callable[..., None],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    """Each query is answered correctly or fails with a code in time; every build completes."""
    kills = int(request.config.getoption("--kills"))
    seed = int(request.config.getoption("--seed") or secrets.randbelow(10**6))
    chance = random.Random(seed)  # noqa: S311 (to be repeated)
    draw_sample(tmp_path / "images", per_class=8)
    system.start("upload-2")
    await system.ready()
    asked, builder, stop = (
        load(PER_SECOND, tuple(system.urls)),
        Builder(system, tmp_path / "images"),
        asyncio.Event(),
    )
    struck: list[tuple[float, str, float]] = []
    async with asked.running():
        await asked.answered()
        building = asyncio.create_task(builder.run(stop))
        while len(struck) < kills:
            (victim,) = chance.choices([*VICTIMS], [*VICTIMS.values()])
            moment = time.monotonic()
            if victim == "builder":
                await builder.kill()
            elif victim == "broker":
                await asyncio.to_thread(node.kill)
                await asyncio.to_thread(node.start)
                await system.ready()
            else:
                await system.kill(victim)
                await system.ready(victim)
            struck.append((moment, victim, time.monotonic() - moment))
            await asyncio.sleep(chance.uniform(0, 3))
        stop.set()
        await building
        await asked.answered()
    _show(seen, asked, struck)
    seen(f"{kills} kills, seed {seed}", asked.judge(*FAILURES))
    seen("slowest", f"{max(one.seconds for one in asked.outcomes):.2f} s")
    seen("builds", f"{builder.complete} complete in {builder.runs} runs")
    assert all(process.alive for process in system.processes.values())


def _show(seen: Callable[..., None], asked: Load, struck: list[tuple[float, str, float]]) -> None:
    """Record per victim: kills, failed queries until the next kill, seconds of unavailability."""
    ends = [*(moment for moment, _, _ in struck[1:]), float("inf")]
    failed, away = defaultdict[str, list[Outcome]](list), defaultdict[str, list[float]](list)
    for (moment, victim, seconds), end in zip(struck, ends, strict=True):
        failed[victim] += [
            one for one in asked.outcomes if moment <= one.ended < end and one.code != "ok"
        ]
        away[victim].append(seconds)
    for victim in sorted(away):
        codes = sorted({one.code for one in failed[victim]})
        seen(
            f"{victim:<11} killed {len(away[victim]):>3} times",
            f"ready again after {max(away[victim]):.1f} s at most",
            f"{len(failed[victim])} queries failed ({' '.join(codes)})",
        )

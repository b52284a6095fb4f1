"""Runs a call of `simile bench`: checks, measures, prints and writes the results."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from rich.console import Console
from rich.text import Text

from services.bench import capacity, preflight, sizing
from services.bench.capacity import Goal, Step
from services.bench.load import scrape
from services.bench.load.images import read_images
from services.bench.load.meter import Measured, Meter, Plan
from services.bench.report import tables
from services.bench.report.display import Display
from services.bench.results import Results
from services.bench.run import clients
from services.bench.sizing import SizingGoal
from services.bench.target import Target
from services.cli.tables import cell
from services.shared.errors import Unreachable
from services.shared.event_loop import loop_factory

STANDARD_OUTPUT: Final = Path("-")


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """Holds the options of the command line.

    Attributes:
        concurrency: the closed loops, one after another.
        rates: the open loops, one after another.
        goal: find the capacity for this goal instead.
        max_images: how many images are read.
        embedders: the number of embedders; None counts those in the metrics.
    """

    url: str
    images: Path
    plan: Plan
    collection: str | None = None
    k: int = 10
    headers: Mapping[str, str] = field(default_factory=dict)
    max_images: int = 256
    unique: bool = True
    concurrency: Sequence[int] = ()
    rates: Sequence[float] = ()
    goal: SizingGoal | None = None
    embedders: int | None = None
    json_file: Path | None = None
    report_file: Path | None = None


def run(options: BenchOptions, console: Console, errors: Console) -> None:
    """Measure, print and write. Raises the errors of the preflight and the metrics, and OSError."""
    session = Session(options, errors)
    with asyncio.Runner(loop_factory=loop_factory("auto")) as runner:
        results = runner.run(session.results())
    text = json.dumps(results.to_json(), indent=2)
    if options.json_file == STANDARD_OUTPUT:
        sys.stdout.write(f"{text}\n")
        console = errors
    else:
        tables.show(results, console)
        if options.json_file is not None:
            options.json_file.write_text(text, encoding="utf-8")
            console.print(cell(f"results: {options.json_file}"))
    if options.report_file is not None and results.measured:
        from services.bench.report.report import write_report  # noqa: PLC0415 (matplotlib takes a second)

        write_report(results, options.report_file)
        console.print(cell(f"report: {options.report_file}"))
    if session.fault is not None:
        raise session.fault


class Session:
    """Measures the runs of a call; an interruption keeps the finished runs."""

    def __init__(
        self,
        options: BenchOptions,
        errors: Console,
        *,
        probe_clients: Sequence[int] = capacity.PROBE_CLIENTS,
        step_seconds: Callable[[float], float] = capacity.step_seconds,
    ) -> None:
        self._probe_clients = probe_clients
        self._step_seconds = step_seconds
        self._options = options
        self._errors = errors
        self._display = Display(errors)
        self._measured: list[Measured] = []
        self.fault: Unreachable | None = None
        """The error of a service that ended the measurement early."""

    async def results(self) -> Results:
        """Measure all runs; after Ctrl-C or an error return the finished ones."""
        options = self._options
        bodies = read_images(options.images, options.max_images)
        found = await preflight.look_up(options.url, options.collection, options.headers)
        asking = urlencode({"collection": found["name"], "k": options.k})
        target = Target(
            url=options.url,
            bodies=bodies,
            path=f"/v1/search?{asking}",
            headers=options.headers,
            unique=options.unique,
        )
        facts = preflight.facts_of(found, target, options.plan)
        await preflight.check_served(target, options.plan.timeout_seconds)
        for url, text in (await scrape.fetch(options.plan.metrics)).items():
            scrape.read(url, text)
        meter = Meter(target, options.plan, self._display.watch)
        rest: Mapping[str, Any] = {}
        try:
            if options.goal is not None:
                rest = await self._find_capacity(meter, options.goal)
            else:
                await self._run_all(meter)
        except asyncio.CancelledError:
            # Ctrl-C keeps the finished runs, which may have taken minutes.
            self._errors.print("interrupted: these runs were finished", style="yellow")
        except Unreachable as error:
            self.fault = error
            self._errors.print(cell(f"{error}: these runs were finished", "yellow"))
        return Results(facts, self._measured, **rest)

    async def _run_all(self, meter: Meter) -> None:
        for concurrency in self._options.concurrency:
            await self._closed(meter, concurrency)
        for rate in self._options.rates:
            await self._open(meter, rate, self._options.plan.seconds)

    async def _find_capacity(self, meter: Meter, goal: SizingGoal) -> Mapping[str, Any]:
        async def closed(concurrency: int) -> Measured:
            measured = await self._closed(meter, concurrency)
            goodput = measured.run.goodput
            self._errors.print(Text(f"{measured.run.name:>11}  {goodput:,.1f} images/s"))
            return measured

        async def opened(rate: float, seconds: float) -> Measured:
            return await self._open(meter, rate, seconds)

        ceiling = await capacity.find_ceiling(closed, self._probe_clients)
        found = await capacity.find_capacity(
            opened, ceiling, Goal(goal.p99_seconds), self._show_step, self._step_seconds
        )
        seen = sizing.seen_at(found, self._measured, self._options.embedders)
        advice = sizing.advise(goal, seen) if seen is not None else ()
        return {"capacity": found, "advice": advice}

    def _show_step(self, step: Step) -> None:
        self._errors.print(tables.of_step(step))

    async def _closed(self, meter: Meter, concurrency: int) -> Measured:
        lasts = self._options.plan.warmup_seconds + self._options.plan.seconds
        async with self._display.run(clients(concurrency), lasts):
            self._measured.append(await meter.closed(concurrency))
        return self._measured[-1]

    async def _open(self, meter: Meter, rate: float, seconds: float) -> Measured:
        async with self._display.run(f"{rate:g}/s", self._options.plan.warmup_seconds + seconds):
            self._measured.append(await meter.open(rate, seconds))
        return self._measured[-1]

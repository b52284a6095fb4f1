"""Compares Simile with other ways to serve its model: `python -m tests.benchmarks.serving`.

Writes serving.json, a section of benchmarks.md and two plots; a run of some systems replaces
their figures and keeps those of the others.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from tests.benchmarks import photographs, results
from tests.benchmarks.display import Display, shown
from tests.benchmarks.results import Figures
from tests.benchmarks.serving import corpus, plots, report, rival_systems, rounds, simile_systems
from tests.benchmarks.serving.client import client
from tests.benchmarks.serving.measured import Measured
from tests.benchmarks.serving.rounds import CONCURRENCIES, Schedule
from tests.benchmarks.serving.systems import Bench, System

_SYSTEMS: Final[Mapping[str, System]] = {
    system.name: system for system in (*simile_systems.SYSTEMS, *rival_systems.SYSTEMS)
}


@click.command()
@click.option("--systems", default=",".join(_SYSTEMS), help="Which, by comma; default: all.")
@click.option("--rounds", "round_count", default=3, show_default=True, help="Turns of each.")
@click.option("--seconds", default=3.0, show_default=True, help="Of a point.")
@click.option(
    "--concurrency",
    default=",".join(map(str, CONCURRENCIES)),
    show_default=True,
    help="How many clients, by comma.",
)
@click.option("--overload/--no-overload", default=True, show_default=True, help="512 clients, too.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("docs"),
    show_default=True,
    help="The folder of benchmarks.md, benchmarks/ and images/.",
)
def main(
    *,
    systems: str,
    round_count: int,
    seconds: float,
    concurrency: str,
    overload: bool,
    out: Path,
) -> None:
    """Compare ways to serve."""
    chosen = _chosen(systems)
    counts = [int(count) for count in concurrency.split(",")]
    schedule = Schedule(round_count, seconds, counts, overload)
    began = time.perf_counter()
    with shown() as display, tempfile.TemporaryDirectory(prefix="serving-") as logs:
        bench = _prepared(Path(logs), chosen, display)
        _run(schedule, chosen, bench, out, display)
    minutes = (time.perf_counter() - began) / 60
    click.echo(f"wrote {out / results.PAGE} and {_stored(out)}, after {minutes:.0f} minutes")


def _chosen(names: str) -> Sequence[System]:
    if unknown := set(names.split(",")) - set(_SYSTEMS):
        message = f"no such system: {', '.join(sorted(unknown))}; there are {', '.join(_SYSTEMS)}"
        raise click.BadParameter(message)
    return [_SYSTEMS[name] for name in names.split(",")]


def _prepared(logs: Path, chosen: Sequence[System], display: Display) -> Bench:
    """Prepare the indexes and the rivals' programs; not measured."""
    display.at("preparing indexes")
    sent = corpus.sent()
    bench = Bench(
        index=corpus.index(),
        root=corpus.HOME / "root",
        images=photographs.paths()[0].parents[1],
        logs=logs / "build",
        probe=sent[0].read_bytes(),
    )
    if any(system.family == "simile" for system in chosen):
        simile_systems.build_index(bench)
    if any(system.family != "simile" for system in chosen):
        display.at("installing the rivals")
        rival_systems.check()
    return bench


def _run(
    schedule: Schedule, chosen: Sequence[System], bench: Bench, out: Path, display: Display
) -> None:
    figures = results.load(_stored(out))
    stored = figures.setdefault("systems", {})
    figures["machine"] = results.machine()
    figures["versions"] = {**simile_systems.versions(), **rival_systems.versions()}
    fresh: set[str] = set()
    with client() as load:
        for system, turn in rounds.turns(schedule, chosen, bench, load, display):
            if system.name not in fresh:
                stored[system.name] = {"title": system.title, "family": system.family, "turns": []}
                fresh.add(system.name)
            stored[system.name]["turns"].append(turn)
            figures["systems"] = {name: stored[name] for name in _SYSTEMS if name in stored}
            _write(figures, out)


def _write(figures: Figures, out: Path) -> None:
    results.save(_stored(out), figures)
    images = out / "images"
    images.mkdir(parents=True, exist_ok=True)
    found = Measured(figures["systems"])
    plots.throughput(found, images / "benchmark-serving.png")
    plots.latency(found, images / "benchmark-latency.png")
    results.write_section(out / results.PAGE, "serving", report.written(figures))


def _stored(out: Path) -> Path:
    return out / "benchmarks" / "serving.json"


if __name__ == "__main__":
    main()

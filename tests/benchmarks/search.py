"""Compares Simile's engine with others, and as it grows: `python -m tests.benchmarks.search`.

Writes search.json, a section of benchmarks.md and two plots; later runs of other sets add to
them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from tests.benchmarks import comparison, growth, plots, results, search_report
from tests.benchmarks.datasets import CACHE, SPECS, prepared
from tests.benchmarks.display import Display, shown

_GROWTH: Final = "growth"
_ALL: Final = (*SPECS, _GROWTH)


@click.command()
@click.option("--sets", default=",".join(_ALL), show_default=True, help="Which, by comma.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The folder of benchmarks.md, benchmarks/ and images/.  [default: docs]",
)
@click.option("--count", type=int, help="Vectors of synthetic sets, to try the benchmark itself.")
def main(sets: str, out: Path | None, count: int | None) -> None:
    """Compare the search engines."""
    # Figures of a trial are not stored beside those of a measurement.
    out = out or (CACHE / "trial" if count else Path("docs"))
    names = sets.split(",")
    if unknown := set(names) - set(_ALL):
        message = f"no such set: {', '.join(sorted(unknown))}; there are {', '.join(_ALL)}"
        raise click.BadParameter(message)
    with shown() as display:
        for name in names:
            _measure(name, out, count, display)
    click.echo(f"wrote {out / results.PAGE}, {out / 'benchmarks' / 'search.json'} and the plots")


def _measure(name: str, out: Path, count: int | None, display: Display) -> None:
    """Measure a set; write its figures at once."""
    stored = out / "benchmarks" / "search.json"
    display.at(f"{name}: making vectors in {CACHE}")
    dataset = prepared(SPECS[growth.SET if name == _GROWTH else name], count=count)
    figures = results.load(stored)
    if name == _GROWTH:
        rows = growth.measure(dataset, growth.SIZES, display)
        figures[_GROWTH] = {"machine": results.machine(), "rows": rows}
    else:
        figures.setdefault("sets", {})[name] = comparison.compare(dataset, display)
    results.save(stored, figures)
    images = out / "images"
    images.mkdir(parents=True, exist_ok=True)
    sets = {name: figures["sets"][name] for name in SPECS if name in figures.get("sets", {})}
    rows = figures.get(_GROWTH, {}).get("rows", [])
    if sets:
        plots.recall_against_speed(sets, images / "benchmark-search.png")
    if rows:
        plots.growth(rows, images / "benchmark-growth.png")
    results.write_section(
        out / results.PAGE, "search", search_report.written(sets, figures.get(_GROWTH))
    )


if __name__ == "__main__":
    main()

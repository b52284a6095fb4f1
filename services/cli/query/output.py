"""Prints the answers of `simile query`: a table for each image, or lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import click
from rich.table import Column, Table

from services.cli.query.wording import reworded
from services.cli.tables import add_row, console, echo, new_table
from services.clients.api import Answer


@dataclass(slots=True)
class QueryOutput:
    """Prints results as they come.

    Attributes:
        url: the address of Simile, for messages.
        as_json: print an object for each image and page, one per line.
        attributes: the tables have a column for the attributes.
        failed: whether an image had no answer.
    """

    url: str
    as_json: bool
    attributes: bool
    failed: bool = False
    _warned: set[str] = field(default_factory=set)

    def pages(self, name: str, answers: Sequence[Answer]) -> None:
        """Print the pages of one image."""
        if self.as_json:
            for answer in answers:
                _line({"name": name, "answer": answer})
        else:
            self._table(answers, answers[0]["collection"])

    def result(self, result: Answer) -> None:
        """Print the result of an image of several; an error is a line on standard error too."""
        problem = result.get("problem")
        if problem is not None:
            self.failed = True
            detail = reworded(problem["code"], problem["detail"], self.url)
            echo(f"simile: {result['name']}: {detail} ({problem['code']})", err=True)
        if self.as_json:
            _line(result)
        elif problem is None:
            echo(f"\n{result['name']}")
            self._table([result["answer"]])

    def _table(self, answers: Sequence[Answer], title: str | None = None) -> None:
        for warning in answers[0].get("warnings", ()):
            self._warn(reworded("", warning, self.url))
        console().print(result_table(answers, title, attributes=self.attributes))

    def _warn(self, warning: str) -> None:
        """Print a warning of the API once for all images."""
        if warning not in self._warned:
            self._warned.add(warning)
            echo(f"simile: warning: {warning}", err=True)


def _line(result: Answer) -> None:
    click.echo(json.dumps(result))


def result_table(answers: Sequence[Answer], title: str | None, *, attributes: bool) -> Table:
    """Format the pages of a query as a table; its caption shows when there are more results."""
    neighbors = [neighbor for answer in answers for neighbor in answer["neighbors"]]
    cells: dict[str, Callable[[Answer], str]] = {
        "similarity": lambda one: f"{one['similarity']:.4f}",
        "label": lambda one: str(one["label"]),
    }
    if any("path" in one for one in neighbors):
        cells["path"] = lambda one: str(one.get("path", ""))
    else:
        cells["item"] = lambda one: str(one["item_id"])
    if attributes:
        cells["attributes"] = _attributes
    if any(one["duplicates"] for one in neighbors):
        cells["near-duplicates"] = lambda one: str(len(one["duplicates"]) or "")
    table = new_table("", *(Column(name, overflow="fold") for name in cells), title=title)
    for rank, neighbor in enumerate(neighbors, start=1):
        add_row(table, str(rank), *(cell(neighbor) for cell in cells.values()))
    table.caption = ", ".join(_captions(answers, len(neighbors))) or None
    return table


def _captions(answers: Sequence[Answer], shown: int) -> Iterator[str]:
    """Yield what the rows do not show: results that are left, and that none is close."""
    if answers[-1]["next_cursor"] is not None:
        yield f"{shown} of {answers[-1]['matching']}"
    if not shown:
        yield "no results"
    elif answers[0].get("no_close_match"):
        yield "no close match"


def _attributes(neighbor: Answer) -> str:
    attributes: Mapping[str, str] = neighbor["attributes"]
    return ", ".join(f"{name}: {value}" for name, value in attributes.items())

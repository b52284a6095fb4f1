"""Renders a summary for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from services.cli.tables import add_row, cell, new_table, span
from services.shared import errors
from services.shared.telemetry.samples import Histogram
from services.top.summary import SHARES, Index, Summary

_UNKNOWN: Final = "-"
_FULL: Final = 0.9
_BUSY: Final = 0.7
_MIB: Final = 2**20
_STATES: Final = {"ready": "green", "not ready": "yellow", "away": "red"}
_TIMES: Final = [f"p{share * 100:g}" for share in SHARES]


def shown(summary: Summary) -> RenderableType:
    """Return everything, for a terminal of at least 80 columns."""
    return Group(*_lines(summary), _replicas(summary), *_tables(summary))


def _lines(summary: Summary) -> Iterator[Text]:
    there = summary.answering, summary.processes
    yield Text.assemble(
        ("simile ", "bold"),
        (f"{there[0]} of {there[1]} processes answer", "" if there[0] == there[1] else "red"),
        f" · in flight {summary.in_flight:.0f} of {summary.in_flight_limit:.0f}",
        " · canary ",
        _canary(summary),
    )
    rate = _number(summary.per_second) if summary.measured else _UNKNOWN
    times = (f"{name} {value}" for name, value in zip(_TIMES, _times(summary.seconds), strict=True))
    yield Text.assemble(("queries ", "bold"), f"{rate}/s · {' · '.join(times)}")
    codes = [
        cell(f"{code} {_number(rate)}/s", _code_style(code))
        for code, rate in summary.per_second_by_code.items()
    ]
    troubles = [
        Text(f"{words} {_number(rate)}/s", style="yellow")
        for words, rate in summary.troubles.items()
    ]
    if codes or troubles:
        yield Text(" · ").join([*codes, *troubles])
    queues = [
        cell(f"{name.removeprefix('simile.')} {count}", _queue_style(name, count))
        for name, count in summary.queues.items()
    ]
    waiting = Text(" · ").join(queues) if queues else Text("not known", style="dim")
    yield Text.assemble(("queues ", "bold"), waiting)


def _canary(summary: Summary) -> Text:
    failed = summary.canary.failed_by_code
    if failed:
        return cell(f"fails: {', '.join(failed)}", "red")
    last = summary.canary.success_age_seconds
    if last is None:
        return Text("not answered yet", style="dim")
    return Text(f"right {span(last)} ago", style="green")


def _code_style(code: str) -> str:
    if code == "ok":
        return "green"
    # A caller's own mistake is no fault of Simile's.
    known = errors.by_code().get(code, errors.Internal)
    return "red" if known.status >= errors.Internal.status else "yellow"


def _queue_style(name: str, count: int) -> str:
    if not count:
        return "dim"
    return "red" if name.endswith((".dead", ".quarantine")) else ""


def _replicas(summary: Summary) -> Table:
    table = new_table(
        Column("replica", no_wrap=True), "service", Column("state", no_wrap=True),
        *(Column(name, justify="right") for name in (
            "/s", "p50", "p99", "busy", "in flight", "cpu", "MiB",
        )),
    )  # fmt: skip
    for one in summary.replicas:
        work = one.work
        median, _, last = _times(work.seconds)
        add_row(
            table,
            one.address,
            one.service,
            Text(one.state + (" new" if one.restarted else ""), style=_STATES[one.state]),
            _number(work.per_second),
            median,
            last,
            _busy(work.busy),
            _UNKNOWN if work.in_hand is None else f"{work.in_hand:.0f}",
            "" if one.cpu is None else f"{one.cpu:.0%}",
            "" if one.memory_bytes is None else f"{one.memory_bytes / _MIB:.0f}",
        )
    return table


def _tables(summary: Summary) -> Iterator[RenderableType]:
    reasons = {f"{one.address} {one.reason}": one for one in summary.replicas if one.reason}
    for text, one in reasons.items():
        yield cell(text, _STATES[one.state])
    if reasons:
        yield Text()
    if summary.stages:
        yield _stages(summary)
    if summary.indexes:
        yield _indexes(summary.indexes)


def _stages(summary: Summary) -> Table:
    table = new_table(
        Column("stage", no_wrap=True),
        *(Column(name, justify="right") for name in ("mean", *_TIMES, "share")),
    )
    # An answered query's stages add up to it: a mean stage's share is of all of them.
    whole = sum(one.sum for one in summary.stages.values())
    for stage, one in summary.stages.items():
        add_row(
            table, stage, _time(one.mean), *_times(one), f"{one.sum / whole:.0%}" if whole else ""
        )
    return table


def _indexes(indexes: Sequence[Index]) -> Table:
    several = {one.collection for one in indexes if _versions(indexes, one.collection) > 1}
    table = new_table(
        Column("collection"), Column("index version", no_wrap=True),
        *(Column(name, justify="right") for name in (
            "items", "age", "recall", "live", "searchers",
        )),
    )  # fmt: skip
    for one in indexes:
        add_row(
            table,
            one.collection,
            cell(one.version, "yellow" if one.collection in several else ""),
            f"{one.items:,}",
            _UNKNOWN if one.age_seconds is None else span(one.age_seconds),
            _recall(one.recall),
            _recall(one.live_recall),
            str(one.searchers),
        )
    return table


def _versions(indexes: Sequence[Index], collection: str) -> int:
    return sum(one.collection == collection for one in indexes)


def _times(histogram: Histogram | None) -> list[str]:
    if histogram is None:
        return [_UNKNOWN] * len(SHARES)
    return [_time(histogram.quantile(share)) for share in SHARES]


def _time(seconds: float) -> str:
    if math.isnan(seconds):
        return _UNKNOWN
    return f"{seconds:.1f} s" if seconds >= 1 else f"{_number(1000 * seconds)} ms"


def _number(value: float | None) -> str:
    """Format a number with two significant digits."""
    if value is None:
        return _UNKNOWN
    if value >= 10 or value == 0:  # noqa: PLR2004 (from two digits on)
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _busy(share: float | None) -> Text:
    if share is None:
        return Text(_UNKNOWN)
    style = "red" if share >= _FULL else "yellow" if share >= _BUSY else ""
    return Text(f"{share:.0%}", style=style)


def _recall(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.4f}"

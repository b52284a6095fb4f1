"""`simile top` computes its summary from two scrapes of the processes."""

from __future__ import annotations

import inspect
import json
import math
import re

import pytest
from rich.console import Console

from services.shared.telemetry import metric_names
from services.shared.telemetry.samples import Samples
from services.top import replica
from services.top import summary as summary_module
from services.top.scrape import Scrape
from services.top.summary import TROUBLES, Summary, summary
from services.top.view import shown
from tests.unit.top import recorded
from tools import reference

A, B, C, D = (f"http://{name}:9090" for name in ("one", "two", "three", "four"))
NOW = 1_000_000.0


def _scrape(url: str, at: float, text: str, **failing: str) -> Scrape:
    return Scrape(url, at, Samples.parsed(text), failing)


def _of(before: list[Scrape], after: list[Scrape]) -> Summary:
    return summary(before, after, clock=lambda: NOW)


def _screen(seen: Summary) -> str:
    console = Console(width=100, record=True, file=None, force_terminal=False)
    with console.capture() as captured:
        console.print(shown(seen))
    return captured.get()


def test_rates_and_times_are_of_what_happened_between() -> None:
    """8 queries within 2 s are 4 a second; earlier queries and other routes are excluded."""
    before = recorded.upload(ok=100, overloaded=10, quick=100, slow=0)
    after = recorded.upload(ok=106, overloaded=12, quick=104, slow=2, model_seconds=3.0)
    seen = _of([_scrape(A, 10.0, before)], [_scrape(A, 12.0, after)])
    assert seen.per_second == 4
    assert seen.per_second_by_code == {"ok": 3, "overloaded": 1}
    assert seen.seconds.quantile(0.5) == pytest.approx(0.1)
    assert list(seen.stages) == ["model", "search"]
    assert seen.stages["model"].mean == pytest.approx(0.5)
    (row,) = seen.replicas
    assert (row.address, row.service, row.version, row.state) == (
        "one:9090", "upload", "1.2.3", "ready",
    )  # fmt: skip
    assert (row.work.per_second, row.work.busy, row.work.in_hand) == (4, 0.25, 3)
    assert row.cpu == pytest.approx(0.04)


def test_replicas_are_added_up_each_by_its_own_clock() -> None:
    """The rates of replicas scraped after 2 s and 4 s are added: 10 / 2 + 27 / 4."""
    before = [_scrape(A, 0, recorded.upload(ok=5)), _scrape(B, 0, recorded.upload(ok=7, quick=7))]
    after = [_scrape(A, 2, recorded.upload(ok=15, slow=10)), _scrape(B, 4, recorded.upload(ok=27))]
    # The quick queries of B fell, so B is a new process, and all of its 27 queries are new.
    seen = _of(before, after)
    assert seen.per_second == pytest.approx(10 / 2 + 27 / 4)
    assert [row.restarted for row in seen.replicas] == [False, True]
    assert seen.in_flight == 6
    assert "ready new" in _screen(seen)


def test_a_restarted_process_counts_from_zero() -> None:
    """No rate is negative, and no time comes from a difference of two processes."""
    before = recorded.upload(ok=1000, quick=900, slow=100)
    after = recorded.upload(ok=4, quick=0, slow=4)
    seen = _of([_scrape(A, 0, before)], [_scrape(A, 2, after)])
    assert seen.per_second_by_code == {"ok": 2}
    assert seen.seconds.quantile(0.5) == pytest.approx(0.55)
    assert seen.replicas[0].restarted


def test_a_process_that_is_away_is_reported_and_spoils_nothing() -> None:
    """The rates of the others stay; the first scrape after its return has no rate yet."""
    there = [_scrape(A, 0, recorded.upload(ok=0)), _scrape(A, 2, recorded.upload(ok=2, quick=2))]
    away = Scrape(B, 2, away="nobody listens at two:9090")
    seen = _of([there[0], _scrape(B, 0, recorded.embedder(images=5))], [there[1], away])
    assert (seen.answering, seen.processes, seen.per_second) == (1, 2, 1)
    assert [(row.service, row.state) for row in seen.replicas] == [
        ("upload", "ready"), ("?", "away"),
    ]  # fmt: skip
    screen = _screen(seen)
    assert "1 of 2 processes answer" in screen
    assert "nobody listens at two:9090" in screen
    back = _of([away], [_scrape(B, 4, recorded.embedder(images=9))])
    assert back.replicas[0].work.per_second is None
    assert not back.measured


def test_a_replica_that_is_not_ready_says_why() -> None:
    """The screen shows the failing checks with their reasons."""
    looks = [
        _scrape(A, 0, recorded.embedder(), broker="away"),
        _scrape(A, 1, recorded.embedder(), broker="away"),
    ]
    seen = _of(looks[:1], looks[1:])
    assert (seen.replicas[0].state, seen.replicas[0].reason) == ("not ready", "broker: away")
    assert "not ready" in _screen(seen)
    assert "broker: away" in _screen(seen)


def test_an_embedder_is_as_busy_as_its_workers() -> None:
    """3 s of work within 2 s of two workers are 75 %; error counters that rise are named."""
    before = recorded.embedder(images=10, busy_seconds=1.0, redelivered=1)
    after = recorded.embedder(images=20, busy_seconds=4.0, redelivered=3)
    seen = _of([_scrape(A, 0, before)], [_scrape(A, 2, after)])
    (row,) = seen.replicas
    assert (row.work.per_second, row.work.busy) == (5, 0.75)
    assert seen.troubles == {"redelivered to embedders": 1}
    assert "75%" in _screen(seen)


def test_all_processes_see_the_same_queues() -> None:
    """The largest number counts, not the sum."""
    seen = _of([], [_scrape(A, 0, recorded.upload(waiting=6)), _scrape(B, 0, recorded.embedder())])
    assert seen.queues == {"simile.embed": 6}
    assert "embed 6" in _screen(seen)


def test_searchers_with_different_versions_are_shown_apart() -> None:
    """Each version has a row with its searchers, its age, and its live recall."""
    new, old = "20260101T000000Z-b", "20250101T000000Z-a"
    before = [
        _scrape(A, 0, recorded.searcher(new, created=NOW - 7200)),
        _scrape(B, 0, recorded.searcher(new, created=NOW - 7200)),
        _scrape(C, 0, recorded.searcher(old, created=NOW - 3 * 86400)),
    ]
    after = [
        _scrape(A, 2, recorded.searcher(new, expected=10, found=9, created=NOW - 7200)),
        _scrape(B, 2, recorded.searcher(new, expected=10, found=10, created=NOW - 7200)),
        _scrape(C, 2, recorded.searcher(old, created=NOW - 3 * 86400)),
    ]
    first, second = _of(before, after).indexes
    assert (first.version, first.searchers, first.items) == (old, 1, 900)
    assert (second.version, second.searchers, second.recall) == (new, 2, 0.99)
    assert second.live_recall == pytest.approx(0.95)
    screen = _screen(_of(before, after))
    assert "3d" in screen
    assert "2h" in screen


def test_the_canary_shows_its_last_right_answer_or_its_failures() -> None:
    """Failures of the last seconds take precedence, since they affect users, too."""
    well = _of([], [_scrape(A, 0, recorded.upload(canary_at=NOW - 20))])
    assert "canary right 20s ago" in _screen(well)
    before = _scrape(A, 0, recorded.upload(canary_at=NOW - 20))
    after = _scrape(A, 2, recorded.upload(canary_at=NOW - 20, wrong_canaries=2))
    assert "canary fails: wrong_answer" in _screen(_of([before], [after]))
    assert "canary not answered yet" in _screen(_of([], [_scrape(A, 0, recorded.upload())]))


def test_before_the_second_look_nothing_is_made_up() -> None:
    """Gauges are known at once; rates and times are not, on the screen and in JSON."""
    seen = _of([], [_scrape(A, 0, recorded.upload(ok=50, quick=50))])
    assert not seen.measured
    assert math.isnan(seen.seconds.quantile(0.5))
    assert "queries -/s" in _screen(seen)
    shown = json.loads(json.dumps(seen.to_json(), allow_nan=False))
    assert shown["queries"]["per_second"] is None
    assert shown["queries"]["p50_seconds"] is None
    assert shown["replicas"][0]["in_hand"] == 3


def test_what_is_read_is_what_services_report() -> None:
    """Every metric that the code names exists in a service; others would read as zero."""
    code = "".join(map(inspect.getsource, (metric_names, replica, summary_module)))
    named = set(re.findall(r'"(simile_[a-z_]+)"', code))
    assert named >= {*TROUBLES}
    tables = "".join(reference.BLOCKS[name]() for name in reference.BLOCKS if "metrics" in name)
    assert [name for name in sorted(named) if f"`{name}`" not in tables] == []

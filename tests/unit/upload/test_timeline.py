"""Whatever happens to a query, its stages are its time, none twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.upload.search.timeline import Timeline

_SOME = st.floats(0.001, 2.0)


def _sent(publish: float = 0.5) -> Timeline:
    """A query that was read for a second and then published."""
    timeline = Timeline(0.0)
    timeline.lap("receive", 1.0)
    timeline.lap("sniff", 1.0)
    timeline.lap("publish", 1.0 + publish)
    return timeline


def _checked(timeline: Timeline) -> dict[str, float]:
    seconds = dict(timeline.seconds())
    total = seconds.pop("total")
    assert sum(seconds.values()) == pytest.approx(total)
    assert all(spent >= 0 for spent in seconds.values())
    return seconds


def test_what_nobody_measures_is_messaging() -> None:
    """Of the time away, what the others do not name was spent on the way."""
    timeline = _sent()
    timeline.add_remote_stages(4.5, {"decode": 0.5, "model": 1.5}, 3)
    timeline.lap("reply", 5.0)
    assert _checked(timeline) == {
        "receive": 1.0, "sniff": 0.0, "publish": 0.5, "decode": 0.5, "model": 1.5,
        "messaging": 1.0, "reply": 0.5,
    }  # fmt: skip
    assert timeline.batch_images == 3


def test_a_confirm_that_comes_late_counts_once() -> None:
    """While a slow confirm was on its way the others worked already: that time is theirs."""
    timeline = _sent(publish=2.0)
    timeline.add_remote_stages(3.5, {"model": 1.0}, 1)
    assert _checked(timeline)["publish"] == pytest.approx(1.5)


def test_an_answer_before_the_confirm_counts_once() -> None:
    """Even all of the work may be done by then."""
    timeline = _sent(publish=2.0)
    timeline.add_remote_stages(2.0, {"model": 0.5}, 1)
    seconds = _checked(timeline)
    assert seconds["publish"] == pytest.approx(1.5)
    assert seconds["messaging"] == 0.0


def test_a_query_asked_twice_adds_up() -> None:
    """A remembered vector that the index does not take costs a second way, in the same stages."""
    timeline = _sent()
    timeline.add_remote_stages(2.5, {"search": 0.25}, 0)
    timeline.lap("publish", 3.0)
    timeline.add_remote_stages(5.0, {"model": 1.0, "search": 0.5}, 1)
    timeline.lap("reply", 5.5)
    seconds = _checked(timeline)
    assert (seconds["publish"], seconds["search"]) == (1.0, 0.75)


def test_a_query_without_an_answer_tells_how_long_it_waited() -> None:
    """At the deadline, all of the wait is messaging: nobody has said more."""
    timeline = _sent()
    timeline.add_remote_stages(9.0, {}, 0)
    assert _checked(timeline)["messaging"] == pytest.approx(7.5)


def test_a_request_that_goes_no_further_is_what_was_done() -> None:
    """Refused at its header, a request has the stages until then."""
    timeline = Timeline(0.0)
    timeline.lap("receive", 1.0)
    timeline.lap("reply", 1.5)
    assert _checked(timeline) == {"receive": 1.0, "reply": 0.5}


def test_copies_go_ways_of_their_own() -> None:
    """The images of a batch share what was before them, and nothing after."""
    timeline = Timeline(0.0)
    timeline.lap("receive", 1.0)
    one, other = timeline.copy(), timeline.copy()
    one.lap("reply", 2.0)
    other.lap("reply", 4.0)
    assert [_checked(copy)["reply"] for copy in (one, other)] == [1.0, 3.0]
    assert list(_checked(timeline)) == ["receive"]


@given(publish=_SOME, model=_SOME, reply=_SOME, data=st.data())
def test_stages_are_the_total(
    publish: float, model: float, reply: float, data: st.DataObject
) -> None:
    """However confirm, work and answer overlap."""
    timeline = _sent(publish)
    answered = data.draw(st.floats(1.0 + model, 1.0 + model + publish + 1.0))
    timeline.add_remote_stages(answered, {"model": model}, 1)
    timeline.lap("reply", timeline.watch.last + reply)
    _checked(timeline)

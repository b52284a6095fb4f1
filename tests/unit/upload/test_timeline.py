"""The stages of a query add up to its time, whatever happens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.upload.search.timeline import Timeline

_SOME = st.floats(0.001, 2.0)


def _sent(publish: float = 0.5) -> Timeline:
    """Return the timeline of a query that was read for a second and then published."""
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


def test_unmeasured_time_is_messaging() -> None:
    """The time between publish and answer that no stage measured counts as messaging."""
    timeline = _sent()
    timeline.add_remote_stages(4.5, {"decode": 0.5, "model": 1.5}, 3)
    timeline.lap("reply", 5.0)
    assert _checked(timeline) == {
        "receive": 1.0, "sniff": 0.0, "publish": 0.5, "decode": 0.5, "model": 1.5,
        "messaging": 1.0, "reply": 0.5,
    }  # fmt: skip
    assert timeline.batch_images == 3


def test_a_late_confirm_counts_once() -> None:
    """While a slow confirm was in transit, the others worked, and that time is theirs."""
    timeline = _sent(publish=2.0)
    timeline.add_remote_stages(3.5, {"model": 1.0}, 1)
    assert _checked(timeline)["publish"] == pytest.approx(1.5)


def test_an_answer_before_the_confirm_counts_once() -> None:
    """The whole work may be done before the confirm."""
    timeline = _sent(publish=2.0)
    timeline.add_remote_stages(2.0, {"model": 0.5}, 1)
    seconds = _checked(timeline)
    assert seconds["publish"] == pytest.approx(1.5)
    assert seconds["messaging"] == 0.0


def test_a_query_sent_twice_adds_up() -> None:
    """A cached vector that the index refuses causes a second pass, in the same stages."""
    timeline = _sent()
    timeline.add_remote_stages(2.5, {"search": 0.25}, 0)
    timeline.lap("publish", 3.0)
    timeline.add_remote_stages(5.0, {"model": 1.0, "search": 0.5}, 1)
    timeline.lap("reply", 5.5)
    seconds = _checked(timeline)
    assert (seconds["publish"], seconds["search"]) == (1.0, 0.75)


def test_a_query_without_an_answer_shows_how_long_it_waited() -> None:
    """At the deadline, the whole wait is messaging."""
    timeline = _sent()
    timeline.add_remote_stages(9.0, {}, 0)
    assert _checked(timeline)["messaging"] == pytest.approx(7.5)


def test_a_refused_request_has_its_stages_so_far() -> None:
    """A request that is refused at its header has the stages until then."""
    timeline = Timeline(0.0)
    timeline.lap("receive", 1.0)
    timeline.lap("reply", 1.5)
    assert _checked(timeline) == {"receive": 1.0, "reply": 0.5}


def test_copies_are_independent() -> None:
    """The images of a batch share the stages before the copy, and none after."""
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
    """The sum holds however confirm, work and answer overlap."""
    timeline = _sent(publish)
    answered = data.draw(st.floats(1.0 + model, 1.0 + model + publish + 1.0))
    timeline.add_remote_stages(answered, {"model": model}, 1)
    timeline.lap("reply", timeline.watch.last + reply)
    _checked(timeline)

"""A frequent event gets a line every ten seconds, with the number of omitted lines."""

from __future__ import annotations

from services.shared.telemetry.log_limit import LogLimit


def test_a_line_in_ten_seconds_counts_those_without() -> None:
    """The first event has a line at once; the next line has the number of events between."""
    now = 100.0
    limit = LogLimit(10.0, lambda: now)
    assert [limit.left_out() for _ in range(4)] == [0, None, None, None]
    now += 10
    assert [limit.left_out() for _ in range(2)] == [3, None]
    now += 10
    assert limit.left_out() == 1

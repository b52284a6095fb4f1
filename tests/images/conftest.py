"""Provides fixtures of the image tests, and prints measurements at the end."""

from __future__ import annotations

import pytest

REPORT: pytest.StashKey[list[str]] = pytest.StashKey()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> list[str]:
    """Return the lines to print at the end."""
    return request.config.stash.setdefault(REPORT, [])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the measurements."""
    lines = config.stash.get(REPORT, [])
    if lines:
        terminalreporter.section("images")
        for line in lines:
            terminalreporter.line(line)

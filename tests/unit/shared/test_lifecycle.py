"""How a process lives and ends: dead stages, signals, exit codes."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import pytest

from services.shared import lifecycle
from services.shared.errors import BrokerUnavailable, InvalidSettings, StageDied
from services.shared.lifecycle import ExitCode


async def _forever() -> None:
    await asyncio.Event().wait()


async def _die() -> None:
    message = "a fault"
    raise ValueError(message)


async def _return() -> None:
    return


async def test_stop_cancels_the_stages() -> None:
    """Supervision ends without an error when it is told to stop."""
    stop = asyncio.Event()
    stop.set()
    await lifecycle.supervise(stop, {"forever": _forever()})


async def test_a_stage_that_fails_is_named_with_its_cause() -> None:
    """StageDied says which stage, and why, and the other stages are cancelled."""
    with pytest.raises(
        StageDied, match=r"stage broken ended by itself: ValueError: a fault"
    ) as seen:
        await lifecycle.supervise(asyncio.Event(), {"forever": _forever(), "broken": _die()})
    assert isinstance(seen.value.__cause__, ValueError)
    assert len(asyncio.all_tasks()) == 1


async def test_a_stage_that_returns_has_died() -> None:
    """A stage never returns by itself: half a service must not look alive."""
    with pytest.raises(StageDied, match="stage quick ended by itself: returned"):
        await lifecycle.supervise(asyncio.Event(), {"quick": _return()})


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BrokerUnavailable("away"), ExitCode.BROKER_UNAVAILABLE),
        (StageDied("dead"), ExitCode.STAGE_DIED),
        (InvalidSettings("wrong"), ExitCode.INVALID_SETTINGS),
        (ValueError("other"), ExitCode.FAILED),
    ],
)
def test_an_exit_code_says_why(error: Exception, code: ExitCode) -> None:
    """Each named end has a code of its own."""
    assert lifecycle.exit_code(error) == code


_DRAINS = """
import asyncio
from services.shared.lifecycle import run_process
async def main(stop):
    print("up", flush=True)
    await stop.wait()
    print("draining", flush=True)
    {drain}
run_process(main)
"""


def _started(drain: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _DRAINS.format(drain=drain)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def test_sigterm_drains_and_exits_with_zero() -> None:
    """The first signal lets the work in hand finish."""
    with _started("await asyncio.sleep(0)") as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == ExitCode.DRAINED


def test_the_second_signal_ends_at_once() -> None:
    """Somebody who asks twice does not wait for a drain."""
    with _started("await asyncio.Event().wait()") as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        while "draining" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == ExitCode.ENDED_AT_ONCE

"""A process handles dead stages and signals, and ends with the right exit code."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import pytest

from services.shared import lifecycle
from services.shared.errors import BrokerUnavailable, BuildFailed, InvalidSettings, StageDied
from services.shared.lifecycle import ExitCode


async def _forever() -> None:
    await asyncio.Event().wait()


async def _die() -> None:
    message = "a fault"
    raise ValueError(message)


async def _return() -> None:
    return


async def test_a_swallowed_cancel_is_not_waited_for() -> None:
    """A task that catches its cancel and continues is cancelled again."""
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 2:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.sleep(60)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await lifecycle.cancel(task, again_seconds=0.05)
    assert task.cancelled()
    assert swallowed == 2


async def test_cancelling_nothing_is_over_at_once() -> None:
    """Cancelling no task, or a failed task, returns at once and raises nothing."""

    async def fails() -> None:
        message = "failed"
        raise ValueError(message)

    failed = asyncio.create_task(fails())
    await asyncio.wait({failed})
    await lifecycle.cancel()
    await lifecycle.cancel(failed)


async def test_stop_cancels_the_stages() -> None:
    """Supervision ends without an error when stop is set."""
    stop = asyncio.Event()
    stop.set()
    await lifecycle.supervise({"forever": _forever()}, until=stop)


async def test_a_stage_that_fails_is_named_with_its_cause() -> None:
    """StageDied names the stage and its error, and the other stages are cancelled."""
    with pytest.raises(
        StageDied, match=r"stage broken ended by itself: ValueError: a fault"
    ) as seen:
        await lifecycle.supervise({"forever": _forever(), "broken": _die()}, until=asyncio.Event())
    assert isinstance(seen.value.__cause__, ValueError)
    assert len(asyncio.all_tasks()) == 1


async def test_a_build_that_fails_keeps_its_name() -> None:
    """A folder that can't be built is no fault of the process, and needs no traceback."""

    async def build() -> None:
        message = "the folder holds no files"
        raise BuildFailed(message)

    with pytest.raises(BuildFailed, match=r"^the folder holds no files$"):
        await lifecycle.supervise({"index": build()}, until=asyncio.Event())


async def test_a_stage_that_returns_has_died() -> None:
    """A stage that returns ends the process, which would be half dead otherwise."""
    with pytest.raises(StageDied, match="stage quick ended by itself: returned"):
        await lifecycle.supervise({"quick": _return()}, until=asyncio.Event())


async def test_stages_run_on_until_the_drain_has_ended() -> None:
    """The drain relies on the stages; a stage that returns during it has not died."""
    stop, request, answer = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def answers() -> None:
        await request.wait()
        answer.set()

    async def drain() -> None:
        request.set()
        await answer.wait()

    stop.set()
    async with asyncio.timeout(10):
        await lifecycle.supervise(
            {"answers": answers(), "forever": _forever()}, until=stop, drain=drain
        )
    assert answer.is_set()


async def test_a_stage_that_fails_during_the_drain_ends_it() -> None:
    """A drain that waits for a dead stage is cancelled at once."""
    stop = asyncio.Event()
    stop.set()
    with pytest.raises(StageDied, match="stage broken"):
        await lifecycle.supervise({"broken": _die()}, until=stop, drain=_forever)


async def test_a_drain_that_fails_is_named() -> None:
    """An error of the drain ends the process as that of a stage does."""
    stop = asyncio.Event()
    stop.set()
    with pytest.raises(StageDied, match="stage drain ended by itself: ValueError: a fault"):
        await lifecycle.supervise({"forever": _forever()}, until=stop, drain=_die)


async def test_work_that_is_done_once_may_return() -> None:
    """The service continues after such work, and ends when the work fails."""
    stop = asyncio.Event()

    async def last() -> None:
        await asyncio.sleep(0)
        stop.set()

    await lifecycle.supervise(
        {"forever": _forever()}, until=stop, once={"quick": _return(), "last": last()}
    )
    with pytest.raises(StageDied, match="stage broken"):
        await lifecycle.supervise({}, until=asyncio.Event(), once={"broken": _die()})


async def test_a_wait_for_work_in_flight_has_an_end() -> None:
    """The result says whether the work was finished in time."""
    assert await lifecycle.wait_idle(_return(), 10, lambda: 0)
    assert not await lifecycle.wait_idle(_forever(), 0.001, lambda: 3)


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
    """Each named error has an exit code of its own."""
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
    """The first signal lets the work in flight finish."""
    with _started("await asyncio.sleep(0)") as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == ExitCode.DRAINED


def test_the_second_signal_ends_at_once() -> None:
    """A second signal does not wait for a drain."""
    with _started("await asyncio.Event().wait()") as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        while "draining" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == ExitCode.ENDED_AT_ONCE


_WEDGES = "await asyncio.gather(asyncio.to_thread(threading.Event().wait))"


@pytest.mark.parametrize(("signals", "code"), [(1, 0), (2, 130)])
def test_a_stuck_thread_does_not_hold_up_the_end(signals: int, code: int) -> None:
    """A stuck model, search or volume does not keep the process from ending with its code."""
    wedged = "threading.Thread(target=threading.Event().wait).start(); await asyncio.sleep(0)"
    drain = wedged if signals == 1 else _WEDGES
    with _started(f"import threading; {drain}") as process:
        process.send_signal(signal.SIGTERM)
        if signals == 2:
            assert process.stdout is not None
            while "draining" not in process.stdout.readline():
                pass
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == code


def test_a_cleanup_that_hangs_does_not_stop_the_second_signal() -> None:
    """After the second signal, the process does not wait for a cleanup."""
    hangs = """try:
        await asyncio.Event().wait()
    finally:
        await asyncio.Event().wait()"""
    with _started(hangs) as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        while "draining" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == ExitCode.ENDED_AT_ONCE


_FAILS = """
import asyncio
from pathlib import Path
from services.shared.lifecycle import run_process
async def main(stop):
    {work}
run_process(main)
"""


@pytest.mark.parametrize(
    ("work", "line"),
    [
        ("Path('/proc/nope/x').mkdir(parents=True)", "/proc/nope can't be used: No such file"),
        ("raise OSError(28, 'No space left on device')", "a file can't be used: No space left"),
    ],
)
def test_a_file_that_can_not_be_used_ends_a_process_with_one_line(work: str, line: str) -> None:
    """The line names the file and the reason, without a traceback."""
    ended = subprocess.run(
        [sys.executable, "-c", _FAILS.format(work=work)],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode == ExitCode.FAILED
    (printed,) = (ended.stdout + ended.stderr).splitlines()
    assert line in printed


def test_an_error_of_the_network_is_not_called_a_file() -> None:
    """An OSError without a file is raised unchanged."""
    reset = ConnectionResetError(104, "Connection reset by peer")
    with pytest.raises(ConnectionResetError):
        lifecycle.file_error(reset)


async def test_a_stop_during_the_start_is_obeyed() -> None:
    """A service that waits before its first work stops waiting at a signal."""
    stop = asyncio.Event()
    starting = asyncio.create_task(lifecycle.unless_stopped(stop, asyncio.sleep(3600, "late")))
    await asyncio.sleep(0)
    stop.set()
    assert await starting is None
    assert await lifecycle.unless_stopped(asyncio.Event(), asyncio.sleep(0, "done")) == "done"
    with pytest.raises(ValueError, match="a fault"):
        await lifecycle.unless_stopped(asyncio.Event(), _die())


_NAMES_ITS_LOOP = """
import asyncio, sys
from services.shared.lifecycle import run_process
if {missing}:
    sys.modules["uvloop"] = None
async def main(stop):
    print(type(asyncio.get_running_loop()).__module__)
run_process(main, {choice!r})
"""


def _names_its_loop(choice: str, *, missing: bool = False) -> subprocess.CompletedProcess[str]:
    code = _NAMES_ITS_LOOP.format(choice=choice, missing=missing)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("choice", "missing", "loop"),
    [
        ("auto", False, "uvloop"),
        ("uvloop", False, "uvloop"),
        ("asyncio", False, "asyncio"),
        ("auto", True, "asyncio"),
    ],
)
def test_the_event_loop_is_the_one_chosen(choice: str, loop: str, *, missing: bool) -> None:
    """The faster loop is used where it is installed, unless the settings choose."""
    ended = _names_its_loop(choice, missing=missing)
    assert ended.stdout.startswith(loop)
    assert ended.returncode == ExitCode.DRAINED


def test_an_event_loop_that_is_missing_is_named() -> None:
    """A missing uvloop that the settings require is an error with advice."""
    assert "simile-search[fast]" in _names_its_loop("uvloop", missing=True).stderr

"""Runs a process from its start to its exit code: signals, supervised stages, the drain.

A stage that ends by itself ends the process, so that a service which lost a part is restarted.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from enum import IntEnum
from functools import wraps
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

import structlog

from services.shared.errors import (
    BrokerUnavailable,
    BuildFailed,
    FileUnusable,
    InvalidSettings,
    SimileError,
    StageDied,
)
from services.shared.event_loop import EventLoop, loop_factory
from services.shared.printable import printable_lines

_P = ParamSpec("_P")
_T = TypeVar("_T")

_log = structlog.get_logger(__name__)

_SECOND_SIGNAL_SECONDS: Final = 1.0
_CANCEL_AGAIN_SECONDS: Final = 2.5
"""More than a clean end takes: a task that still runs has swallowed its cancellation."""

_VOLUME_ERRORS: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE}
)
"""Errors of reads and writes, which carry no file name."""


class ExitCode(IntEnum):
    """The reason why a process ended; the numbers are those of sysexits.h where one fits."""

    DRAINED = 0
    FAILED = 1
    BROKER_UNAVAILABLE = 69
    STAGE_DIED = 70
    INVALID_SETTINGS = 78
    ENDED_AT_ONCE = 130


def exit_code(error: BaseException) -> ExitCode:
    """Return the exit code of a process that an error ended."""
    match error:
        case BrokerUnavailable():
            return ExitCode.BROKER_UNAVAILABLE
        case StageDied():
            return ExitCode.STAGE_DIED
        case InvalidSettings():
            return ExitCode.INVALID_SETTINGS
        case _:
            return ExitCode.FAILED


def exit_on_error(command: Callable[_P, None]) -> Callable[_P, None]:
    """Decorate a command, so that a named error ends it with one line and an exit code."""

    @wraps(command)
    def shown(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except SimileError as error:
            _end(error)
        except OSError as error:
            _end(file_error(error))

    return shown


def file_error(error: OSError) -> FileUnusable:
    """Return the named error of an OSError about a file. Raises any other OSError again."""
    if error.filename is None and error.errno not in _VOLUME_ERRORS:
        raise error
    place = "a file" if error.filename is None else error.filename
    user = f" (as user {os.geteuid()})" if error.errno in {errno.EACCES, errno.EPERM} else ""
    return FileUnusable(f"{place} can't be used: {error.strerror}{user}")


def _end(error: SimileError) -> NoReturn:
    line = printable_lines(f"simile: {error} ({error.code})")
    print(line, file=sys.stderr)  # noqa: T201 (for people)
    sys.exit(exit_code(error))


async def supervise(
    stages: Mapping[str, Coroutine[Any, Any, None]],
    *,
    until: asyncio.Event,
    drain: Callable[[], Awaitable[None]] | None = None,
    once: Mapping[str, Coroutine[Any, Any, None]] | None = None,
) -> None:
    """Run the stages of a service until it is stopped and drained, then cancel them.

    Args:
        stages: the work by name. A stage that ends before `until` is set has died; after that it
            may return.
        until: the event that stops the service.
        drain: finishes the work in flight after `until` is set, while the stages still run.
        once: work by name that may return at any time.

    Raises:
        StageDied: a stage has died, or any of this work has failed; the message names it.
        InvalidSettings: a stage raised it: a restart would not help.
        BuildFailed: likewise.
    """
    finite = {asyncio.create_task(work, name=name) for name, work in (once or {}).items()}
    pending = {asyncio.create_task(work, name=name) for name, work in stages.items()} | finite
    ending = asyncio.create_task(_drained(until, drain), name="drain")
    tasks = pending = {ending, *pending}
    try:
        while ending in pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                may_return = until.is_set() or task in finite
                if task.exception() is not None or not may_return:
                    raise _died(task)
    finally:
        await cancel(*tasks)


async def _drained(until: asyncio.Event, drain: Callable[[], Awaitable[None]] | None) -> None:
    await until.wait()
    if drain is not None:
        await drain()


async def wait_idle(
    idle: Awaitable[object], timeout_seconds: float, in_flight: Callable[[], int]
) -> bool:
    """Wait until the work in flight is finished, and log a warning where that takes too long.

    Args:
        idle: ends when no work is in flight.
        timeout_seconds: how long to wait.
        in_flight: counts the work that is left, for the log.

    Returns:
        True if the work was finished in time.
    """
    try:
        await asyncio.wait_for(idle, timeout_seconds)
    except TimeoutError:
        _log.warning("drain timed out", action="drain_timeout", in_flight=in_flight())
        return False
    return True


def _died(task: asyncio.Task[Any]) -> StageDied | InvalidSettings | BuildFailed:
    error = task.exception()
    if isinstance(error, InvalidSettings | BuildFailed):
        return error
    reason = "returned" if error is None else f"{type(error).__name__}: {error}"
    died = StageDied(f"stage {task.get_name()} ended by itself: {reason}")
    died.__cause__ = error
    return died


async def unless_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, _T]) -> _T | None:
    """Return the result of the work, or None when `stop` was set first and the work was cancelled.

    A service waits in this way for what it needs before it takes work, so that a signal ends it
    at once.
    """
    working = asyncio.create_task(work, name="start")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        await cancel(working, stopping)


class StoppedEarly(Exception):
    """A signal came before the process took any work, so that there is nothing to drain."""


async def started(stop: asyncio.Event, work: Coroutine[Any, Any, _T]) -> _T:
    """Return the result of a step of the start. Raises StoppedEarly when `stop` is set first."""

    async def done() -> tuple[_T]:
        return (await work,)

    result = await unless_stopped(stop, done())
    if result is None:
        raise StoppedEarly
    return result[0]


async def cancel(*tasks: asyncio.Task[Any], again_seconds: float = _CANCEL_AGAIN_SECONDS) -> None:
    """Cancel the tasks, and wait until they have ended; their results are dropped.

    A task is cancelled again until it ends. aiormq turns a cancellation during a connect into an
    error, and a task that retries after errors would run for ever.

    Args:
        tasks: the tasks to cancel.
        again_seconds: after how long a task that still runs is cancelled again.
    """
    unfinished = set(tasks)
    while unfinished:
        for task in unfinished:
            task.cancel()
        _, unfinished = await asyncio.wait(unfinished, timeout=again_seconds)
    await asyncio.gather(*tasks, return_exceptions=True)


def log_failure(error: SimileError) -> None:
    """Log the error that ends the process."""
    # The traceback shows where a stage died; other messages say all that is needed.
    cause = error.__cause__ if isinstance(error, StageDied) else None
    _log.error(str(error), action=error.code, exc_info=cause)


async def _until_signal(
    main: Callable[[asyncio.Event], Awaitable[None]], on_failure: Callable[[SimileError], None]
) -> ExitCode:
    stop, again = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    running = asyncio.ensure_future(main(stop))
    second_signal = asyncio.create_task(again.wait(), name="second signal")

    def on_signal(name: str) -> None:
        (again if stop.is_set() else stop).set()
        _log.info("draining", action="drain", signal=name)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number.name)
    await asyncio.wait({running, second_signal}, return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        running.cancel()
        # Long enough for cleaning up; a broker that doesn't answer must not delay the end.
        await asyncio.wait({running}, timeout=_SECOND_SIGNAL_SECONDS)
        return ExitCode.ENDED_AT_ONCE
    second_signal.cancel()
    try:
        await running
    except StoppedEarly:
        return ExitCode.DRAINED
    except SimileError as error:
        on_failure(error)
        return exit_code(error)
    except OSError as error:
        named = file_error(error)
        on_failure(named)
        return exit_code(named)
    return ExitCode.DRAINED


def run_process(
    main: Callable[[asyncio.Event], Awaitable[None]],
    event_loop: EventLoop = "auto",
    on_failure: Callable[[SimileError], None] = log_failure,
) -> None:
    """Run `main(stop)` to its end, and exit with the code that says why it ended.

    SIGTERM and SIGINT set `stop`; a second signal ends the process at once.

    Args:
        main: runs until the event is set.
        event_loop: the kind of event loop; auto is uvloop where it is installed.
        on_failure: reports the named error that ended `main`; by default it is logged.

    Raises:
        MissingExtra: uvloop is required and missing.
    """
    # The runner is never closed: closing it, and Python's own exit, wait for every thread, and a
    # thread that is stuck in a model, a search or a dead volume would delay the end for ever.
    runner = asyncio.Runner(loop_factory=loop_factory(event_loop))
    _leave(runner.run(_until_signal(main, on_failure)))


def _leave(code: ExitCode) -> NoReturn:
    """Flush the output and end the process, whatever its threads do."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

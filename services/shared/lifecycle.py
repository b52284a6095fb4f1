"""How a process lives and ends: signals, supervised tasks, drain with a timeout, exit codes.

A supervised task that ends by itself ends the process: half a service must not look alive.
"""

from __future__ import annotations

import asyncio
import errno
import importlib
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from enum import IntEnum
from functools import wraps
from typing import Any, Final, Literal, NoReturn, ParamSpec, TypeVar

import structlog

from services.shared.errors import (
    BrokerUnavailable,
    BuildFailed,
    FileUnusable,
    InvalidSettings,
    MissingExtra,
    SimileError,
    StageDied,
)
from services.shared.printable import printable_lines

_P = ParamSpec("_P")
_T = TypeVar("_T")

EventLoop = Literal["auto", "asyncio", "uvloop"]

_log = structlog.get_logger(__name__)

_AT_ONCE_SECONDS: Final = 1.0
_AGAIN_SECONDS: Final = 2.5
"""More than a clean end takes: after that, a cancel was swallowed."""

_OF_VOLUMES: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE}
)
"""What a read or a write ends with, which names no file."""


class ExitCode(IntEnum):
    """Why a process ended; the numbers are those of sysexits.h where one fits."""

    DRAINED = 0
    FAILED = 1
    BROKER_UNAVAILABLE = 69
    STAGE_DIED = 70
    INVALID_SETTINGS = 78
    ENDED_AT_ONCE = 130


def exit_code(error: BaseException) -> ExitCode:
    """The exit code that an error ends the process with."""
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
    """Let a command end by a named error with one line and its exit code, not a traceback."""

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
    """The named error of a file that can't be used; raises `error` where it is about no file."""
    if error.filename is None and error.errno not in _OF_VOLUMES:
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
        Whether the work was finished in time.
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
    """The work's result, or None when `stop` was set first; then the work is cancelled.

    For what a service waits for before it takes any work: a signal must not wait for that, too.
    """
    working = asyncio.create_task(work, name="start")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        await cancel(working, stopping)


class StoppedEarly(Exception):
    """A signal came before the process had begun its work: there is nothing to drain."""


async def started(stop: asyncio.Event, work: Coroutine[Any, Any, _T]) -> _T:
    """The result of a step that comes before any work. Raises StoppedEarly when `stop` is first."""

    async def done() -> tuple[_T]:
        return (await work,)

    result = await unless_stopped(stop, done())
    if result is None:
        raise StoppedEarly
    return result[0]


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel the tasks and wait until they have ended; their results are dropped.

    Again and again: aiormq, cancelled at the wrong moment of a connect, makes an error of it, and
    a task that tries again after errors would go on for ever.
    """
    unfinished = set(tasks)
    while unfinished:
        for task in unfinished:
            task.cancel()
        _, unfinished = await asyncio.wait(unfinished, timeout=_AGAIN_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)


def log_failure(error: SimileError) -> None:
    """Log the error that ends the process."""
    # Of a stage that died, where; any other message says all that there is to know.
    cause = error.__cause__ if isinstance(error, StageDied) else None
    _log.error(str(error), action=error.code, exc_info=cause)


async def _until_signal(
    main: Callable[[asyncio.Event], Awaitable[None]], on_failure: Callable[[SimileError], None]
) -> ExitCode:
    stop, again = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    running = asyncio.ensure_future(main(stop))
    asked_twice = asyncio.create_task(again.wait(), name="second signal")

    def on_signal(name: str) -> None:
        (again if stop.is_set() else stop).set()
        _log.info("draining", action="drain", signal=name)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number.name)
    await asyncio.wait({running, asked_twice}, return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
        running.cancel()
        # A moment to end what was started; a broker that doesn't answer must not be waited for.
        await asyncio.wait({running}, timeout=_AT_ONCE_SECONDS)
        return ExitCode.ENDED_AT_ONCE
    asked_twice.cancel()
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
    """Run `main(stop)` to its end and leave the process with the exit code that says why.

    `on_failure` reports a named error; by default it is logged. SIGTERM and SIGINT set `stop`; the
    second one ends at once, whatever still runs. Raises MissingExtra.
    """
    # Never closed: that, and Python's own end, wait for every thread, and one that is stuck in a
    # model, a search, or a dead volume would hold up the end for ever.
    runner = asyncio.Runner(loop_factory=loop_factory(event_loop))
    _leave(runner.run(_until_signal(main, on_failure)))


def _leave(code: ExitCode) -> NoReturn:
    """End now; what was written is flushed, threads are left where they are."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def loop_factory(event_loop: EventLoop) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the event loop: uvloop's takes less of the CPU. Raises MissingExtra."""
    if event_loop == "asyncio":
        return asyncio.new_event_loop
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        if event_loop == "uvloop":
            message = (
                "SIMILE_EVENT_LOOP is uvloop, which is missing: pip install 'simile-search[fast]'"
            )
            raise MissingExtra(message) from None
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory

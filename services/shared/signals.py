"""Answers SIGTERM before the first library is imported; standard library alone.

The kernel drops a signal without a handler when its target is the first process of a container,
and a service takes a second or two to import what it needs: without this, a pod that is deleted
while it starts hangs until it is killed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from types import FrameType
from typing import Final

_BY_SIGNAL: Final = 128
"""A shell reports 128 and the number of the signal that ended a process."""

_SERVICES: Final = frozenset({"upload", "embedder", "searcher", "up"})
"""Commands that run until a signal, so that a signal is no failure of theirs."""


def end_on_signals() -> None:
    """End the process with exit code 0 at SIGTERM or SIGINT; no work is taken yet.

    `lifecycle.run_process` puts handlers that drain in their place.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)


def end_command_on_signals(arguments: Iterable[str]) -> None:
    """Do the same for the command that these arguments of `simile` name.

    A command that ends by itself keeps what Python does at Ctrl-C, and fails at SIGTERM: a Job that
    is interrupted has not succeeded.
    """
    if next(iter(arguments), "") in _SERVICES:
        end_on_signals()
    elif os.getpid() == 1:
        signal.signal(signal.SIGTERM, _fail)


def _end(_number: int, _frame: FrameType | None) -> None:
    # Not by an exception: an import may take that for its own failure and go on.
    os._exit(0)


def _fail(number: int, _frame: FrameType | None) -> None:
    os._exit(_BY_SIGNAL + number)

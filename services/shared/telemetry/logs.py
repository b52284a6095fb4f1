"""Writes structured logs to stdout: JSON, or pretty on a terminal; `action` names the event."""

from __future__ import annotations

import asyncio
import io
import logging
import sys
import time
from collections.abc import Callable
from typing import ClassVar, Final, TextIO

import orjson
import structlog
from structlog.typing import EventDict, ExcInfo, Processor

from services.shared.printable import printable_lines

_NOISY: Final = ("aio_pika", "aiormq", "opentelemetry", "urllib3")
_NOISY_LINE_SECONDS: Final = 5.0
_TOGETHER_SECONDS: Final = 0.1


class _NoisyRateLimit(logging.Filter):
    """Allows each noisy library one line every few seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._quiet_until: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        library = record.name.partition(".")[0]
        if library not in _NOISY:
            return True
        now = time.monotonic()
        if now < self._quiet_until.get(library, 0.0):
            return False
        self._quiet_until[library] = now + _NOISY_LINE_SECONDS
        return True


class _Stdout:
    """Writes structlog's lines to stdout, at a third of the cost of the standard library's logging.

    A write is a system call that releases the interpreter's lock. To write less often, the lines of
    an event loop up to `info` are collected for a moment; warnings and errors are written at once.
    """

    _writes_soon: ClassVar[asyncio.AbstractEventLoop | None] = None

    def __init__(self, name: str = "") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        """Write a line at once, from any thread."""
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    warning = error = critical = exception = msg

    def info(self, line: str) -> None:
        """Write a line soon, from any thread; at once in a thread without an event loop."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.msg(line)
            return
        sys.stdout.write(f"{line}\n")
        if _Stdout._writes_soon is not loop:
            _Stdout._writes_soon = loop
            loop.call_later(_TOGETHER_SECONDS, _Stdout._write)

    debug = info

    @classmethod
    def _write(cls) -> None:
        cls._writes_soon = None
        sys.stdout.flush()


def _json(line: object, default: Callable[[object], object]) -> str:
    return orjson.dumps(line, default, orjson.OPT_SORT_KEYS).decode()


def _printable(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Escape control characters, so that foreign text can't control a terminal."""
    for name, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[name] = printable_lines(value)
    return event


def _traceback(out: TextIO, error: ExcInfo) -> None:
    lines = io.StringIO()
    structlog.dev.plain_traceback(lines, error)
    out.write(printable_lines(lines.getvalue()))


def configure(level: str, log_format: str, **process: str) -> None:
    """Configure structlog and the standard library's logging to write to stdout.

    Args:
        level: debug | info | warning | error.
        log_format: auto | json | pretty.
        process: fields of the process, which every line carries.
    """
    pretty = log_format == "pretty" or (log_format == "auto" and sys.stdout.isatty())

    # structlog's context variables don't work here, since threads don't inherit them.
    def add_process(_logger: object, _method: str, event: EventDict) -> EventDict:
        return {**process, **event}

    shared: list[Processor] = [
        add_process,
        structlog.processors.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not pretty:
        shared.append(structlog.processors.format_exc_info)
    shared.append(_printable)
    renderer = (
        structlog.dev.ConsoleRenderer(exception_formatter=_traceback)
        if pretty
        else structlog.processors.JSONRenderer(_json)
    )
    structlog.configure(
        processors=[*shared, renderer],
        logger_factory=_Stdout,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_NoisyRateLimit())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)

"""Structured logs on stdout: JSON, or pretty on a terminal; `action` names what happened."""

from __future__ import annotations

import logging
import sys
import time
from typing import Final

import structlog
from structlog.typing import Processor

_NOISY: Final = "aiormq"
_NOISY_LINE_SECONDS: Final = 5.0


class _NoisyRateLimit(logging.Filter):
    """Lets the noisy libraries say one thing every few seconds: a down broker fills logs."""

    def __init__(self) -> None:
        super().__init__()
        self._quiet_until = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(_NOISY):
            return True
        now = time.monotonic()
        if now < self._quiet_until:
            return False
        self._quiet_until = now + _NOISY_LINE_SECONDS
        return True


def configure(level: str, log_format: str) -> None:
    """Route structlog and the standard library's loggers to one handler on stdout.

    level: debug | info | warning | error. log_format: auto | json | pretty.
    """
    pretty = log_format == "pretty" or (log_format == "auto" and sys.stdout.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not pretty:
        shared.append(structlog.processors.format_exc_info)
    renderer = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if pretty
        else structlog.processors.JSONRenderer(sort_keys=True)
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
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

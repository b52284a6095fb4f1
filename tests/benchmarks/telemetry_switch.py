"""Runs a service whose metrics and logs can be switched off and on, for the benchmark.

`python -m tests.benchmarks.telemetry_switch SERVICE`: SIGUSR1 switches them off, SIGUSR2 on again.
Times are measured in both states: answers contain them.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import prometheus_client
import structlog

from services.embedder import process as embedder
from services.embedder.metrics import EmbedderMetrics
from services.searcher import process as searcher
from services.searcher.metrics import SearcherMetrics
from services.shared.telemetry.durations import Series
from services.upload import process as upload
from services.upload.http import observed
from services.upload.metrics import UploadMetrics
from tests.benchmarks.messaging import serve_stub

OFF: Final = signal.SIGUSR1
ON: Final = signal.SIGUSR2

STUB: Final = "stub"
"""The name of an embedder with a model that computes nothing."""

_SERVICES: Final[Mapping[str, Callable[[], None]]] = {
    STUB: serve_stub,
    "embedder": embedder.main,
    "searcher": searcher.main,
    "upload": upload.main,
}
_SWITCHED: Final[tuple[tuple[Any, str], ...]] = (
    (prometheus_client.Counter, "inc"),
    (prometheus_client.Gauge, "inc"),
    (prometheus_client.Gauge, "set"),
    (prometheus_client.Histogram, "observe"),
    (Series, "observe"),
    (UploadMetrics, "count_admission"),
    (observed, "_record"),
    (EmbedderMetrics, "count"),
    (EmbedderMetrics, "observe"),
    (SearcherMetrics, "count"),
    (structlog.make_filtering_bound_logger("info"), "info"),
)


def _nothing(*args: object, **kwargs: object) -> None:
    del args, kwargs


def main() -> None:
    """Serve until a signal that ends the process."""
    real = [(owner, name, getattr(owner, name)) for owner, name in _SWITCHED]

    def off(*_: object) -> None:
        for owner, name, _function in real:
            setattr(owner, name, _nothing)

    def on(*_: object) -> None:
        for owner, name, function in real:
            setattr(owner, name, function)

    signal.signal(OFF, off)
    signal.signal(ON, on)
    _SERVICES[sys.argv[1]]()


if __name__ == "__main__":
    main()

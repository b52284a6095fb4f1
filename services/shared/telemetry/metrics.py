"""What the services' metrics have in common: buckets; each service owns its metrics."""

from __future__ import annotations

from typing import Final

DURATION_BUCKETS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
"""Seconds; a query takes tens of milliseconds, a deadline some seconds."""

SIZE_BUCKETS: Final = tuple(float(2**power) for power in range(10, 25, 2))
"""Bytes, 1 KiB to 16 MiB."""

BATCH_BUCKETS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
"""Items."""

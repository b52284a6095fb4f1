"""Formats numbers as Grafana does, in the units that the dashboards use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

_SECONDS: Final = (
    (1e-6, "µs"),
    (1e-3, "ms"),
    (1, "s"),
    (60, "min"),
    (3600, "hours"),
    (86400, "days"),
)
_SHORT: Final = ((1, ""), (1e3, "K"), (1e6, "Mil"), (1e9, "Bil"))
_BYTES: Final = ((1, "B"), (2**10, "KiB"), (2**20, "MiB"), (2**30, "GiB"))

_SCALES: Final = {"s": _SECONDS, "short": _SHORT, "bytes": _BYTES}


def written(value: float, unit: str, decimals: int | None = None) -> str:
    """Return the value with its unit; a dash if there is none."""
    if math.isnan(value):
        return "-"
    if unit in _SCALES:
        return _scaled(value, _SCALES[unit], decimals)
    if unit == "percentunit":
        return f"{_short(value * 100, decimals)}%"
    suffix = " req/s" if unit == "reqps" else unit.partition("suffix:")[2]
    return _short(value, decimals) + suffix


def _scaled(value: float, scales: Sequence[tuple[float, str]], decimals: int | None) -> str:
    fitting = [scale for scale in scales if abs(value) >= scale[0]] or list(scales[:1])
    if value == 0:
        fitting = [scale for scale in scales if scale[0] == 1]
    size, name = fitting[-1]
    return f"{_short(value / size, decimals)} {name}".rstrip()


def _short(value: float, decimals: int | None) -> str:
    """Return at most three significant digits."""
    if decimals is None:
        places = 2 - math.floor(math.log10(abs(value))) if value else 0
        decimals = min(3, max(0, places))
        return f"{value:.{decimals}f}".rstrip("0").rstrip(".") if decimals else f"{value:.0f}"
    return f"{value:.{decimals}f}"

"""Reads headers (`probe`) and pixels (`decode`) of images, under the same limits."""

from __future__ import annotations

from services.shared.image_limits import Limits
from services.shared.imaging.decode import PIXELS, current_name
from services.shared.imaging.probe import (
    Probe,
    format_of,
    formats,
    probe,
    probe_start,
)
from services.shared.imaging.processes.confined import decode, thumbnail

__all__ = [
    "PIXELS",
    "Limits",
    "Probe",
    "current_name",
    "decode",
    "format_of",
    "formats",
    "probe",
    "probe_start",
    "thumbnail",
]

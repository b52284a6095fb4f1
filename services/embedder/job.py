"""The job of an image in an embedder, and the count of images in flight."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from services.embedder.models.model import Pixels
from services.shared.contracts import Slip
from services.shared.errors import DecoderCrashed, DecodingTooSlow, Internal, SimileError
from services.shared.imaging import Probe
from services.shared.messaging.broker import Delivery
from services.shared.telemetry.stopwatch import Stopwatch
from services.shared.telemetry.watchdog import ProgressWatch, Watchdog

EXPIRED: Final = "the deadline of this image has passed"


@dataclass(slots=True, eq=False)
class Job:
    """An image with its results: stages add pixels, then a vector or an error.

    Attributes:
        slip: the routing slip of the request.
        image: the encoded image; emptied once it is decoded.
        delivery: the message to settle.
        interactive: false for the images of an index build.
        crash_count: embedders that ended, or lost their connection, while they held this image.
        poison: the image broke something; it is put into quarantine.
        probe: the image's header, once it was read.
        pixels: H,W,3 (uint8), until the result is published.
        vector: float32 little-endian, of length 1.
        error: the reason why there is no vector.
        batch_images: images that the model was given together with this one, itself included.
        batch_span: the traceparent of the batch's span; empty without one.
    """

    slip: Slip
    image: bytes
    delivery: Delivery
    interactive: bool
    crash_count: int = 0
    poison: bool = False
    probe: Probe | None = None
    pixels: Pixels | None = None
    vector: bytes | None = None
    error: SimileError | None = None
    batch_images: int = 0
    batch_span: str = ""
    watch: Stopwatch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = Stopwatch(self.delivery.received)

    @property
    def intake(self) -> str:
        """The metric label for the kind of request: interactive, bulk, or canary."""
        if self.slip.canary:
            return "canary"
        return "interactive" if self.interactive else "bulk"

    @property
    def redelivered(self) -> bool:
        """Return whether another embedder took this image and did not finish."""
        return self.crash_count > 0

    @property
    def expired(self) -> bool:
        """Return whether the caller has stopped waiting."""
        return self.slip.expired(time.time_ns() // 1_000_000)

    def set_decoded(self, decoded: Pixels | SimileError) -> None:
        """End the decode stage with the image's pixels, or with the reason why it has none."""
        if isinstance(decoded, SimileError):
            self.error = decoded
            self.poison = isinstance(decoded, DecodingTooSlow | DecoderCrashed | Internal)
        else:
            self.pixels = decoded
        self.image = b""
        self.watch.lap("decode")


class InFlight:
    """Counts the images that were taken from the queues and are not settled yet."""

    def __init__(self, stages: Sequence[Watchdog]) -> None:
        """Count from 0; the end of work in any of `stages` counts as progress."""
        self.progress = ProgressWatch(stages)
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def count(self) -> int:
        """The number of images in flight."""
        return self.progress.in_flight

    def add(self) -> None:
        """Count one image more."""
        self.progress.taken()
        self._empty.clear()

    def remove(self, count: int) -> None:
        """Count `count` images fewer."""
        self.progress.settled(count)
        if self.progress.in_flight == 0:
            self._empty.set()

    async def wait_empty(self) -> None:
        """Wait until no image is in flight."""
        await self._empty.wait()

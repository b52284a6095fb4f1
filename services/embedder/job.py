"""One image on its way through an embedder."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

from services.embedder.models.model import Pixels
from services.shared.contracts import Slip
from services.shared.errors import SimileError
from services.shared.messaging.broker import Delivery
from services.shared.telemetry.stopwatch import Stopwatch

NOBODY_WAITS: Final = "nobody waits for this image any more"


@dataclass(slots=True, eq=False)
class Job:
    """Filled in stage by stage: pixels, then vector (float32 little-endian) or error."""

    slip: Slip
    image: bytes
    delivery: Delivery
    interactive: bool
    deaths: int = 0
    """Embedders that ended with this in hand, and may have died of it."""
    culprit: bool = False
    """Whether it broke something, and is to be set aside."""
    pixels: Pixels | None = None
    vector: bytes | None = None
    error: SimileError | None = None
    batch_images: int = 0
    batch_span: str = ""
    """The traceparent of its batch, where that is traced."""
    watch: Stopwatch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = Stopwatch(self.delivery.received)

    @property
    def intake(self) -> str:
        """For whom it is, as metrics tell it: interactive, bulk, or canary."""
        if self.slip.canary:
            return "canary"
        return "interactive" if self.interactive else "bulk"

    @property
    def redelivered(self) -> bool:
        """Whether an embedder before us took it and did not finish."""
        return self.deaths > 0

    @property
    def expired(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.slip.expired(time.time_ns() // 1_000_000)

"""One image on its way through an embedder."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from services.embedder.model import Pixels
from services.shared.contracts import Slip
from services.shared.errors import SimileError
from services.shared.messaging.broker import Delivery


@dataclass(slots=True, eq=False)
class Job:
    """Filled in stage by stage: pixels, then vector (float32 little-endian) or error."""

    slip: Slip
    image: bytes
    delivery: Delivery
    interactive: bool
    pixels: Pixels | None = None
    vector: bytes | None = None
    error: SimileError | None = None
    decoded: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def redelivered(self) -> bool:
        """Whether an embedder before us took it and did not finish."""
        return self.delivery.redelivered

    @property
    def expired(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.slip.expired(time.time_ns() // 1_000_000)

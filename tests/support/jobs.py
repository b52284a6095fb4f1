"""Jobs of an embedder that came from no queue."""

from __future__ import annotations

from services.embedder.job import Job
from services.shared.contracts import Slip


class _Delivery:
    type = "simile.v1.EmbedRequest"
    body = b""
    received = 0.0
    headers: dict[str, str] = {}  # noqa: RUF012 (the port's shape; nobody writes it)

    redelivered = False
    redeliveries = 0

    def ack(self) -> None:
        """Nothing to settle here."""

    def reject(self, *, requeue: bool) -> None:
        """Nothing to settle here."""


def job(
    name: str, image: bytes = b"", *, interactive: bool = True, redelivered: bool = False
) -> Job:
    """A job of that name."""
    slip = Slip(correlation_id=name, reply_to="next", final_reply_to="asker")
    return Job(slip, image, _Delivery(), interactive, deaths=int(redelivered))

"""Decodes one image to a model's input, with a named error for every failure."""

from __future__ import annotations

from typing import Final

import structlog

from services.embedder.job import EXPIRED, Job
from services.embedder.metrics import EmbedderMetrics
from services.embedder.models.model import Model, Pixels
from services.embedder.work_queue import DecodeTask, WorkQueue
from services.shared import imaging
from services.shared.errors import DeadlineExceeded, Internal, SimileError
from services.shared.imaging import Limits, Probe

_log = structlog.get_logger(__name__)

SMALL_BYTES: Final = 128 * 2**20
"""Memory for one image, at most, to be decoded beside others; larger ones run one at a time."""


class Decoder:
    """Decodes the images of a work queue; for several threads."""

    def __init__(
        self,
        model: Model,
        limits: Limits,
        queue: WorkQueue,
        metrics: EmbedderMetrics,
        *,
        small_bytes: int = SMALL_BYTES,
    ) -> None:
        """Create a decoder for the input of `model`."""
        self._model = model
        self._limits = limits
        self._queue = queue
        self._metrics = metrics
        self._small_bytes = small_bytes
        # Models decode a JPEG at 1.4 to 1.6 times their input; the estimate must not be lower.
        self._draft_pixels = 2 * model.input_size

    def decode(self, task: DecodeTask) -> Pixels | SimileError | None:
        """Decode the task's image, unless its caller has stopped waiting.

        Returns:
            H,W,3 (uint8), or the image's error; None when a large image must wait for the gate.
        """
        job = task.job
        job.watch.lap("embed_queue")
        if job.expired:
            self._metrics.expired.labels(before="decode").inc()
            return DeadlineExceeded(EXPIRED)
        try:
            job.probe = known = job.probe or self._probe(job.image)
            if not task.large and self._is_large(job, known) and not self._queue.start_large(task):
                return None
            return self._model.prepare(job.image, job.slip.box, known=known)
        except SimileError as error:
            return error
        except Exception:  # noqa: BLE001 (an unforeseen fault of one image must not end the thread)
            _log.exception(
                "decode failed", action=Internal.code, correlation_id=job.slip.correlation_id
            )
            return Internal("the image could not be prepared; the log says why")

    def _probe(self, image: bytes) -> Probe:
        return imaging.probe_start(image, self._limits) or imaging.probe(image, self._limits)

    def _is_large(self, job: Job, known: Probe) -> bool:
        target = self._draft_pixels if job.slip.box is None else None
        return known.memory(target) > self._small_bytes

"""One worker: runs its model on batches, and finds the image that the model fails on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import structlog

from services.embedder.job import Job
from services.embedder.metrics import EmbedderMetrics
from services.embedder.models.model import Model, unit_bytes
from services.shared.errors import Internal, ModelBroken, SimileError
from services.shared.telemetry.stopwatch import clock
from services.shared.telemetry.watchdog import Watchdog

_log = structlog.get_logger(__name__)

_FAULTS_IN_A_ROW: Final = 16
"""Of no images but of a broken device, or library: what has never been seen of images."""


class Worker:
    """One model and its thread's work."""

    def __init__(self, model: Model, metrics: EmbedderMetrics, watchdog: Watchdog) -> None:
        self._model = model
        self._metrics = metrics
        self._watchdog = watchdog
        self._faults = 0
        self.held = False
        """Whether the results of its last batch were to be held."""

    def warm(self) -> None:
        """Run once, so that the first query isn't the slow one."""
        size = self._model.input_size
        self._model.embed(np.zeros((1, size, size, 3), np.uint8))

    def worked(self, seconds: float) -> None:
        """Count time that its thread was busy, with its model or in the model's place."""
        self._metrics.worker_busy.inc(seconds)

    def embed(self, batch: Sequence[Job]) -> None:
        """Give every job its vector or its error. Raises ModelBroken when nothing works any more.

        A batch that the model fails on is halved until the culprits are alone.
        """
        with self._watchdog.work():
            self._embed(batch)

    def _embed(self, batch: Sequence[Job]) -> None:
        if self._works_on(batch):
            return
        if len(batch) == 1:
            batch[0].error = Internal("the model failed on this image; the log says why")
            batch[0].culprit = True
            return
        middle = len(batch) // 2
        self._embed(batch[:middle])
        self._embed(batch[middle:])

    def _works_on(self, batch: Sequence[Job]) -> bool:
        try:
            self._embed_together(batch)
        except Exception as error:  # noqa: BLE001 (whatever a model raises has a culprit)
            for job in batch:
                job.watch.lap("model")
            self._count(batch, error)
            return False
        self._faults = 0
        return True

    def _embed_together(self, batch: Sequence[Job]) -> None:
        for job in batch:
            job.watch.lap("batch_wait")
        started = clock()
        vectors = self._model.embed(
            np.stack([job.pixels for job in batch if job.pixels is not None])
        )
        ended = clock()
        self.worked(ended - started)
        for job, vector in zip(batch, vectors, strict=True):
            job.watch.lap("model", ended)
            job.batch_images = len(batch)
            try:
                job.vector = unit_bytes(vector)
            except SimileError as error:
                job.error = error

    def _count(self, batch: Sequence[Job], error: Exception) -> None:
        self._faults += 1
        self._metrics.model_faults.inc()
        ids = [job.slip.correlation_id for job in batch]
        _log.error("the model failed", action="model_fault", correlation_ids=ids, exc_info=error)
        if self._faults == _FAULTS_IN_A_ROW:
            message = f"the model failed {self._faults} times in a row, at last with {error!r}"
            raise ModelBroken(message) from error

"""Measures every installed runtime on one network: its speed, and its distance from torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.embedder.models import cpu, parity, speed
from services.embedder.models.exported import Exported
from services.embedder.models.speed import Speed
from services.embedder.settings import EmbedderSettings, Precision
from services.shared.errors import RuntimeUnfit


@dataclass(frozen=True, slots=True)
class Row:
    """A runtime in one precision.

    Attributes:
        cosine: to the vectors of torch.
        unfit: the reason why the runtime is not used.
    """

    library: str
    precision: Precision
    speed: Speed | None = None
    cosine: float | None = None
    unfit: str | None = None


def survey(settings: EmbedderSettings) -> tuple[Exported, Sequence[Row]]:
    """Return the export, made now if it is missing, and its runtimes. Raises as `cpu.load`."""
    network = cpu.exported_network(settings)
    return network, [
        _row(network, settings.model_copy(update={"precision": precision}), library)
        for library, precisions in cpu.PRECISIONS.items()
        if cpu.installed(library)
        for precision in precisions
    ]


def _row(network: Exported, settings: EmbedderSettings, library: str) -> Row:
    (runtime,) = cpu.open_runtimes(library, network, settings, 1)
    pixels, reference = network.reference()
    precision = settings.precision
    try:
        cosine = parity.check(runtime, pixels, reference)
    except RuntimeUnfit as error:
        return Row(library, precision, unfit=str(error))
    measured = speed.known(network, library, precision, lambda: speed.measure(runtime, pixels))
    return Row(library, precision, measured, cosine)

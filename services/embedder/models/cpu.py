"""Loads models for CPUs: a worker for each core, in the fastest runtime that matches torch."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from services.embedder.models import exported, parity, speed
from services.embedder.models.exported import Exported
from services.embedder.models.lite.layers import SCALES
from services.embedder.models.model import Model, Runtime
from services.embedder.models.networks import NETWORKS, NetworkModel
from services.embedder.models.speed import Speed
from services.embedder.settings import EmbedderSettings, Precision
from services.shared import cores
from services.shared.errors import InvalidSettings, MissingExtra, RuntimeUnfit
from services.shared.imaging import Limits

if TYPE_CHECKING:
    from services.embedder.models.architectures import Built

_log = structlog.get_logger(__name__)

_TORCH: Final = "torch"
PRECISIONS: Final[Mapping[str, Sequence[Precision]]] = {
    "onnxruntime": ("fp32",),
    "openvino": ("fp32", "bf16"),
    _TORCH: ("fp32", "bf16"),
}
"""Precisions by library; where speeds are alike, the first library is chosen."""

_TORCH_CHUNK_IMAGES: Final = 8
_BATCH_LIMIT: Final = 8
"""A batch is one message. Larger batches cost fewer messages, but each image waits for all."""


def load(settings: EmbedderSettings, limits: Limits) -> Sequence[Model]:
    """Load a model for each worker.

    Raises WeightsUnavailable, InvalidSettings, MissingExtra, RuntimeUnfit.
    """
    network, core_count = NETWORKS[settings.model], settings.workers or cores.available()
    libraries = candidates(settings)
    chosen = _Torch(settings) if libraries == [_TORCH] else _Exports(settings, libraries)
    identity, chunk_images, runtimes = chosen.open(core_count)
    return [
        NetworkModel(identity, network, limits, one, chunk_images, _BATCH_LIMIT) for one in runtimes
    ]


def candidates(settings: EmbedderSettings) -> list[str]:
    """Return the installed libraries that the settings allow.

    Raises InvalidSettings, MissingExtra.
    """
    fit = [name for name, able in PRECISIONS.items() if settings.precision in able]
    if settings.runtime != "auto":
        fit = [name for name in fit if name == settings.runtime]
    if not fit:
        message = (
            f"SIMILE_EMBEDDER_PRECISION is {settings.precision}, which {settings.runtime} does "
            "not compute in on a CPU: choose fp32, or bf16 with openvino or torch"
        )
        raise InvalidSettings(message)
    found = [name for name in fit if installed(name)]
    if not found:
        message = f"none of {', '.join(fit)} is installed: pip install 'simile-search[embedder]'"
        raise MissingExtra(message)
    return found


def installed(library: str) -> bool:
    """Return whether a library can be imported, without importing it."""
    return importlib.util.find_spec(library) is not None


@dataclass(frozen=True, slots=True)
class _Torch:
    """A network in torch, without an export."""

    settings: EmbedderSettings

    def open(self, workers: int) -> tuple[str, int, Sequence[Runtime]]:
        """Return the model id, the images of a chunk, and a runtime for each worker."""
        from services.embedder.models import export  # noqa: PLC0415 (torch takes seconds to import)

        built = _built(self.settings)
        pixels = parity.reference_pixels(NETWORKS[self.settings.model].preprocessing.crop)
        reference = export.reference_vectors(built, pixels)
        runtime = _on_torch(self.settings)
        parity.check(runtime, pixels, reference)
        return export.identity(built, self.settings), _TORCH_CHUNK_IMAGES, [runtime] * workers


class _Exports:
    """An exported network in the fastest library."""

    def __init__(self, settings: EmbedderSettings, libraries: Sequence[str]) -> None:
        self._settings = settings
        self._libraries = libraries
        self._exported = exported_network(settings)

    def open(self, workers: int) -> tuple[str, int, Sequence[Runtime]]:
        """Return the model id, the images of a chunk, and a runtime for each worker."""
        speeds = self._speeds()
        library = speed.fastest(speeds)
        runtimes = open_runtimes(library, self._exported, self._settings, workers)
        cosine = parity.check(runtimes[0], *self._exported.reference())
        if runtimes[0].info.precision != self._settings.precision:
            _log.warning("this CPU does not have that precision", action="precision_unavailable",
                         asked=self._settings.precision, **asdict(runtimes[0].info))  # fmt: skip
        measured = {name: round(one.images_per_second, 1) for name, one in speeds.items()}
        _log.info("runtime chosen", action="runtime_chosen", library=library,
                  cosine=round(cosine, 6), images_per_second=measured)  # fmt: skip
        return self._exported.facts.model_id, speeds[library].chunk_images, runtimes

    def _speeds(self) -> dict[str, Speed]:
        """Return the speeds of the libraries that match torch. Raises RuntimeUnfit without one."""
        speeds: dict[str, Speed] = {}
        unfit: RuntimeUnfit | None = None
        for library in self._libraries:
            measured = functools.partial(self._measured, library)
            precision = self._settings.precision
            try:
                speeds[library] = speed.known(self._exported, library, precision, measured)
            except RuntimeUnfit as error:
                _log.warning(str(error), action=error.code, library=library)
                unfit = error
        if unfit is not None and not speeds:
            raise unfit
        return speeds

    def _measured(self, library: str) -> Speed:
        (runtime,) = open_runtimes(library, self._exported, self._settings, 1)
        pixels, reference = self._exported.reference()
        parity.check(runtime, pixels, reference)
        return speed.measure(runtime, pixels)


def open_runtimes(
    library: str, network: Exported, settings: EmbedderSettings, workers: int
) -> Sequence[Runtime]:
    """Open a runtime for each worker; a runtime for several threads is shared."""
    if library == "onnxruntime":
        from services.embedder.models.runtimes.onnx_session import OnnxSession  # noqa: PLC0415

        return [OnnxSession(network.graph)] * workers
    if library == "openvino":
        from services.embedder.models.runtimes.openvino_request import OpenVinoRequest  # noqa: PLC0415

        return [OpenVinoRequest(network.graph, settings.precision) for _ in range(workers)]
    return [_on_torch(settings)] * workers


def _on_torch(settings: EmbedderSettings) -> Runtime:
    from services.embedder.models.runtimes.torch_cpu import TorchCpu  # noqa: PLC0415

    return TorchCpu(_built(settings).network, settings.precision)


@functools.lru_cache(maxsize=1)
def _built(settings: EmbedderSettings) -> Built:
    """Build the network in torch, once: the export and the measurement use the same network."""
    from services.embedder.models import architectures  # noqa: PLC0415

    return architectures.build(settings)


def exported_network(settings: EmbedderSettings) -> Exported:
    """Return the export of the network that the settings select; export it if it is missing.

    Raises WeightsUnavailable, InvalidSettings, MissingExtra.
    """
    return exported.find(settings.models_dir, settings) or _export(settings)


def _export(settings: EmbedderSettings) -> Exported:
    folder: Path = settings.models_dir
    needs_torch = settings.model not in SCALES or settings.weights == "random"
    try:
        if not needs_torch and installed("onnx"):
            from services.embedder.models.lite import graph  # noqa: PLC0415 (images lack onnx)

            return graph.export(folder, settings)
        if not (installed(_TORCH) and installed("onnxscript")):
            raise _cannot_export(settings, "torch" if needs_torch else "onnx")
        from services.embedder.models import export  # noqa: PLC0415

        return export.export(folder, _built(settings), settings)
    except OSError as error:
        message = (
            f"the exported network can't be written ({error}): "
            "name a folder in SIMILE_EMBEDDER_MODELS_DIR that this user may write"
        )
        raise InvalidSettings(message) from error


def _cannot_export(settings: EmbedderSettings, library: str) -> MissingExtra:
    extra = "embedder" if library == _TORCH else "lite"
    return MissingExtra(
        f"{settings.models_dir} holds no export of {settings.model} with these weights, and "
        f"{library}, which makes one, is not installed: pip install 'simile-search[{extra}]' "
        f"(in a clone: make run TORCH=1), or run `simile model export` where {library} is "
        "installed and copy that folder to SIMILE_EMBEDDER_MODELS_DIR"
    )

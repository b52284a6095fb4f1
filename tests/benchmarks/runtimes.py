"""Compares the runtimes of the network: `python -m tests.benchmarks.runtimes`.

Writes runtimes.json and a section of benchmarks.md. Each runtime is measured on one thread; for
ONNX Runtime, two workers are compared with two threads per batch, and int8 by static quantization.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime import quantization

from services.embedder.models import cpu, parity
from services.embedder.models.exported import INPUT, Exported
from services.embedder.models.model import Pixels, Runtime, RuntimeInfo, Vectors
from services.embedder.models.networks import NETWORKS
from services.embedder.models.runtimes.onnx_session import OnnxSession
from services.embedder.models.runtimes.openvino_request import OpenVinoRequest
from services.embedder.settings import EmbedderSettings
from tests.benchmarks import photographs, results, runtimes_report
from tests.benchmarks.display import Display, shown

_SIZES: Final = (1, 8, 32)
_ROUNDS: Final = 5
_SLOT_SECONDS: Final = 1.0
_CALIBRATION: Final = 100
_ASKING_EVERY: Final = 10
_K: Final = 10


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A runtime with its name in the tables."""

    name: str
    runtime: Runtime


class _TwoThreads:
    """ONNX Runtime with two threads per batch, for comparison with two workers."""

    info = RuntimeInfo("onnxruntime", "fp32", "cpu")

    def __init__(self, graph: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )

    def embed(self, batch: Pixels) -> Vectors:
        """Return N vectors."""
        vectors: Vectors = self._session.run(None, {INPUT: batch})[0]
        return vectors


class _Calibration(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Yields photographs, from which the ranges of int8 are calibrated."""

    def __init__(self, pixels: Pixels) -> None:
        self._batches = iter(pixels[:, None])

    def get_next(self) -> dict[str, Pixels] | None:
        """Return the next input, None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs"), show_default=True)
def main(out: Path) -> None:
    """Compare the runtimes of the default network on photographs."""
    settings = EmbedderSettings(device="cpu")
    network = cpu.exported_network(settings)
    with shown() as display, tempfile.TemporaryDirectory() as folder:
        display.expect(3 + _ROUNDS)
        display.at("decoding photographs")
        pixels = _photographs(settings)
        display.done()
        candidates = [*_installed(network, settings), *_int8(network, pixels, Path(folder))]
        display.done()
        figures = {
            "machine": results.machine(),
            "measured": time.strftime("%Y-%m-%d"),
            "model_id": network.facts.model_id,
            "photographs": len(pixels),
            "runtimes": _measured(candidates, network, pixels, display),
        }
    stored = out / "benchmarks" / "runtimes.json"
    results.save(stored, figures)
    results.write_section(out / results.PAGE, "runtimes", runtimes_report.written(figures))
    click.echo(f"wrote {out / results.PAGE} and {stored}")


def _photographs(settings: EmbedderSettings) -> Pixels:
    prepared = NETWORKS[settings.model].preprocessing.prepare
    return np.stack(
        [prepared(path.read_bytes(), photographs.LIMITS) for path in photographs.paths()]
    )


def _installed(network: Exported, settings: EmbedderSettings) -> list[_Candidate]:
    found = []
    for library, precisions in cpu.PRECISIONS.items():
        for precision in precisions:
            asked = settings.model_copy(update={"precision": precision})
            (runtime,) = cpu.open_runtimes(library, network, asked, 1)
            found.append(_Candidate(f"{library} {precision}", runtime))
    return found


def _int8(network: Exported, pixels: Pixels, folder: Path) -> list[_Candidate]:
    prepared, graph = folder / "prepared.onnx", folder / "int8.onnx"
    quantization.shape_inference.quant_pre_process(network.graph, prepared)
    every = len(pixels) // _CALIBRATION
    quantization.quantize_static(
        prepared,
        graph,
        _Calibration(pixels[::every]),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
    )
    return [
        _Candidate("onnxruntime int8", OnnxSession(graph)),
        _Candidate("openvino int8", OpenVinoRequest(graph, "fp32")),
    ]


def _measured(
    candidates: Sequence[_Candidate], network: Exported, pixels: Pixels, display: Display
) -> dict[str, results.Figures]:
    """Measure each candidate, speeds in turn, so that all meet the same conditions; by name."""
    display.at("vectors of every runtime")
    vectors = {one.name: _embedded(one.runtime, pixels) for one in candidates}
    truth = vectors["torch fp32"]
    display.done()
    speeds: dict[str, dict[int, list[float]]] = {
        one.name: {size: [] for size in _SIZES} for one in candidates
    }
    pairs: dict[str, list[float]] = {"two workers": [], "two threads a batch": []}
    alone, shared = OnnxSession(network.graph), _TwoThreads(network.graph)
    for number in range(_ROUNDS):
        display.at(f"speeds, round {number + 1} of {_ROUNDS}")
        for one in candidates:
            for size in _SIZES:
                speeds[one.name][size].append(_speed(one.runtime, pixels[:size]))
        pairs["two workers"].append(_two(alone, pixels[:8]))
        pairs["two threads a batch"].append(_speed(shared, pixels[:8]))
        display.done()
    return {
        one.name: {
            "images_per_second": {
                str(size): statistics.median(rounds) for size, rounds in speeds[one.name].items()
            },
            "cosine_least": float(parity.cosines(vectors[one.name], truth).min()),
            "cosine_median": float(np.median(parity.cosines(vectors[one.name], truth))),
            "top10_queries": _kept(truth, vectors[one.name], truth),
            "top10_both": _kept(truth, vectors[one.name], vectors[one.name]),
        }
        for one in candidates
    } | {name: {"images_per_second": statistics.median(rounds)} for name, rounds in pairs.items()}


def _embedded(runtime: Runtime, pixels: Pixels) -> Vectors:
    parts = [runtime.embed(pixels[start : start + 8]) for start in range(0, len(pixels), 8)]
    vectors = np.concatenate(parts)
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _kept(truth: Vectors, asking: Vectors, stored: Vectors) -> float:
    """Return the share of torch's top 10 that queries of `asking` find among `stored`."""
    every = np.arange(0, len(truth), _ASKING_EVERY)
    wanted, found = _nearest(truth[every], truth, every), _nearest(asking[every], stored, every)
    same = [len(set(one) & set(other)) for one, other in zip(wanted, found, strict=True)]
    return sum(same) / (_K * len(every))


def _nearest(queries: Vectors, stored: Vectors, own: npt.NDArray[np.int64]) -> list[list[int]]:
    dots = queries @ stored.T
    dots[np.arange(len(own)), own] = -2
    nearest: list[list[int]] = np.argsort(-dots, axis=1)[:, :_K].tolist()
    return nearest


def _speed(runtime: Runtime, batch: Pixels) -> float:
    runtime.embed(batch)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < _SLOT_SECONDS:
        runtime.embed(batch)
        count += len(batch)
    return count / (time.perf_counter() - started)


def _two(runtime: Runtime, batch: Pixels) -> float:
    """Return images per second of two workers with a batch each."""
    speeds: list[float] = []
    threads = [
        threading.Thread(target=lambda: speeds.append(_speed(runtime, batch))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(speeds)


if __name__ == "__main__":
    main()

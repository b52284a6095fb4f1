"""Writes an EfficientNet-Lite as an ONNX graph, and exports it with its reference vectors."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import structlog
from onnx import TensorProto, helper, numpy_helper

from services.embedder.models import exported
from services.embedder.models.exported import Exported
from services.embedder.models.lite import network as lite
from services.embedder.models.lite import reference
from services.embedder.models.lite.layers import DIMENSION, MEAN, STD
from services.embedder.models.lite.network import Floats, Layer, LiteNetwork
from services.embedder.models.model import model_id
from services.embedder.models.networks import NETWORKS
from services.embedder.models.parity import reference_pixels
from services.embedder.settings import EmbedderSettings

_log = structlog.get_logger(__name__)

_OPSET: Final = 18
_IR_VERSION: Final = 8
"""Of 2022: what every ONNX Runtime and OpenVINO that Simile allows can read."""

_NO_TORCH: Final = ""


def export(models_dir: Path, settings: EmbedderSettings) -> Exported:
    """Write the network as ONNX, with reference vectors. Raises OSError, WeightsUnavailable."""
    network, about = lite.load(settings), NETWORKS[settings.model]
    pixels = reference_pixels(about.preprocessing.crop)
    identity = model_id(
        settings.model, network.weights_sha256, about.preprocessing, about.dimension
    )
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "network.onnx"
        onnx.save(model_of(network, about.preprocessing.crop), graph)
        facts = exported.facts_of(
            graph, exported.source(settings), identity, about.dimension, _NO_TORCH
        )
        vectors = reference.vectors(network, pixels)
        done = exported.write(models_dir, graph, facts, (pixels, vectors))
    _log.info("network exported", action="export", model_id=identity, folder=str(done.folder))
    return done


def model_of(network: LiteNetwork, size: int) -> onnx.ModelProto:
    """Return the graph: N,size,size,3 pixels (uint8) to N,D vectors."""
    graph = _Graph()
    value = graph.normalised(exported.INPUT)
    for layers, skips in network.blocks:
        value = graph.block(value, layers, skips=skips)
    axes = graph.constant("axes", np.array([2, 3], np.int64))
    graph.add("ReduceMean", [value, axes], "vectors", keepdims=0)
    pixels = helper.make_tensor_value_info(
        exported.INPUT, TensorProto.UINT8, ["batch", size, size, 3]
    )
    vectors = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", DIMENSION])
    made = helper.make_graph(graph.nodes, "network", [pixels], [vectors], graph.values)
    opset = helper.make_opsetid("", _OPSET)
    model: onnx.ModelProto = helper.make_model(
        made, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="simile"
    )
    onnx.checker.check_model(model)
    return model


class _Graph:
    """Collects the nodes and the constants of a graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.values: list[onnx.TensorProto] = []
        self._bounds = [
            self.constant("zero", np.array(0, np.float32)),
            self.constant("six", np.array(6, np.float32)),
        ]

    def add(self, operation: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:  # noqa: ANN401 (onnx's own)
        """Append a node; return the name of its output."""
        self.nodes.append(helper.make_node(operation, inputs, [output], output, **attributes))
        return output

    def constant(self, name: str, value: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
        """Store a constant; return its name."""
        self.values.append(numpy_helper.from_array(value, name))
        return name

    def normalised(self, pixels: str) -> str:
        """Turn N,H,W,3 of 0..255 into N,3,H,W normalised by ImageNet's mean and deviation."""
        mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (MEAN, STD))
        scale = self.constant("scale", 1 / (np.float32(255) * std))
        shift = self.constant("shift", -mean / std)
        floats = self.add("Cast", [pixels], "floats", to=TensorProto.FLOAT)
        planes = self.add("Transpose", [floats], "planes", perm=[0, 3, 1, 2])
        return self.add("Add", [self.add("Mul", [planes, scale], "scaled"), shift], "normalised")

    def block(self, value: str, layers: Sequence[Layer], *, skips: bool) -> str:
        """Append the layers of a block; return the name of its output."""
        entered = value
        for layer in layers:
            value = self._layer(value, layer)
        return self.add("Add", [entered, value], f"{value}.sum") if skips else value

    def _layer(self, value: str, layer: Layer) -> str:
        """Append a convolution with its batch norm folded in, a third faster than both."""
        conv = layer.conv
        weight = self.constant(f"{conv.name}.weight", _folded(layer))
        bias = self.constant(f"{conv.name}.bias", layer.shift)
        value = self.add(
            "Conv", [value, weight, bias], conv.name,
            kernel_shape=[conv.kernel] * 2, strides=[conv.stride] * 2,
            pads=[conv.near, conv.near, conv.far, conv.far],
            group=conv.inputs if conv.depthwise else 1,
        )  # fmt: skip
        return self.add("Clip", [value, *self._bounds], f"{value}.clip") if conv.clipped else value


def _folded(layer: Layer) -> Floats:
    return layer.weight * layer.scale[:, None, None, None]

"""Computes the vectors of an EfficientNet-Lite in numpy: slowly, and independent of any runtime.

Runtimes are compared with these vectors before they are used. Batch norms are not folded into the
convolutions here, so that the comparison covers the folding too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from services.embedder.models.lite.layers import MEAN, STD
from services.embedder.models.lite.network import Floats, Layer, LiteNetwork
from services.embedder.models.model import Pixels, Vectors

_RELU6: Final = np.float32(6)


def vectors(network: LiteNetwork, pixels: Pixels) -> Vectors:
    """Compute N,D vectors of N,H,W,3 pixels."""
    return np.stack([_vector(network, image) for image in pixels])


def _vector(network: LiteNetwork, image: Pixels) -> Floats:
    mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)
    values = (image.astype(np.float32) / np.float32(255) - mean) / std
    for layers, skips in network.blocks:
        result = _block(values, layers)
        values = values + result if skips else result
    vector: Floats = values.mean((0, 1), dtype=np.float32)
    return vector


def _block(values: Floats, layers: Sequence[Layer]) -> Floats:
    for layer in layers:
        values = _convolved(values, layer) * layer.scale + layer.shift
        if layer.conv.clipped:
            values = values.clip(0, _RELU6)
    return values


def _convolved(values: Floats, layer: Layer) -> Floats:
    """Convolve H,W,C values: the sum over the kernel's places of the shifted values."""
    conv, weight = layer.conv, layer.weight
    sides = (conv.near, conv.far)
    padded = np.pad(values, (sides, sides, (0, 0)))
    height, width = ((length - conv.kernel) // conv.stride + 1 for length in padded.shape[:2])
    total = np.zeros((height, width, conv.outputs), np.float32)
    for down in range(conv.kernel):
        for right in range(conv.kernel):
            rows = slice(down, down + conv.stride * height, conv.stride)
            columns = slice(right, right + conv.stride * width, conv.stride)
            part, place = padded[rows, columns], weight[:, :, down, right]
            total += part * place[:, 0] if conv.depthwise else part @ place.T
    return total

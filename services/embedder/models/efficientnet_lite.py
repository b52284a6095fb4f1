"""EfficientNet-Lite for CPUs: EfficientNet without squeeze-excite, ReLU6 for swish.

Parameter names and padding are those of the published weights, converted from TensorFlow.
Source: Tan and Le, 2019, and tensorflow/tpu/models/official/efficientnet/lite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

DIMENSION: Final = 1280
_STEM: Final = 32
_CLASSES: Final = 1000


@dataclass(frozen=True, slots=True)
class _Stage:
    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


_B0: Final = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


class _SameConv(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding: the far side gets the odd pixel."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int, size: int, groups: int = 1
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, groups=groups, bias=False)
        self.out_size = math.ceil(size / stride)
        total = max((self.out_size - 1) * stride + kernel - size, 0)
        near, far = total // 2, total - total // 2
        if near == far:
            self.padding = (near, near)
            self._far_side: list[int] | None = None
        else:
            self._far_side = [near, far, near, far]

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 (the base class's name)
        if self._far_side is not None:
            input = nn.functional.pad(input, self._far_side)  # noqa: A001
        return super().forward(input)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class _Block(nn.Module):
    """An inverted residual; its input has `size` pixels a side."""

    def __init__(self, inputs: int, stage: _Stage, *, stride: int, size: int) -> None:
        super().__init__()
        inner = inputs * stage.expand
        self._expands = stage.expand > 1
        self._skips = stride == 1 and inputs == stage.channels
        if self._expands:
            self._expand_conv = nn.Conv2d(inputs, inner, 1, bias=False)
            self._bn0 = _norm(inner)
        self._depthwise_conv = _SameConv(
            inner, inner, stage.kernel, stride=stride, size=size, groups=inner
        )
        self._bn1 = _norm(inner)
        self._project_conv = nn.Conv2d(inner, stage.channels, 1, bias=False)
        self._bn2 = _norm(stage.channels)
        self.out_size = self._depthwise_conv.out_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        if self._expands:
            y = nn.functional.relu6(self._bn0(self._expand_conv(y)))
        y = nn.functional.relu6(self._bn1(self._depthwise_conv(y)))
        projected: torch.Tensor = self._bn2(self._project_conv(y))
        return x + projected if self._skips else projected


class EfficientNetLite(nn.Module):
    """A network for square images of `size` pixels, with 1000 classes until `_fc` is removed."""

    def __init__(self, *, size: int, width: float = 1.0, depth: float = 1.0) -> None:
        """Width and depth scale the stages; first and last stage keep their depth."""
        super().__init__()
        self._conv_stem = _SameConv(3, _STEM, 3, stride=2, size=size)
        self._bn0 = _norm(_STEM)
        self._blocks = nn.ModuleList()
        channels, side = _STEM, self._conv_stem.out_size
        for stage in _scaled(width, depth):
            for repeat in range(stage.repeats):
                stride = stage.stride if repeat == 0 else 1
                block = _Block(channels, stage, stride=stride, size=side)
                self._blocks.append(block)
                channels, side = stage.channels, block.out_size
        self._conv_head = nn.Conv2d(channels, DIMENSION, 1, bias=False)
        self._bn1 = _norm(DIMENSION)
        self._fc: nn.Module = nn.Linear(DIMENSION, _CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """N,3,size,size normalised -> N,1000, or N,1280 (the mean over the head) without `_fc`."""
        x = nn.functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = nn.functional.relu6(self._bn1(self._conv_head(x)))
        classes: torch.Tensor = self._fc(x.mean((2, 3)))
        return classes


def _scaled(width: float, depth: float) -> list[_Stage]:
    last = len(_B0) - 1
    return [
        _Stage(
            stage.repeats if index in (0, last) else math.ceil(stage.repeats * depth),
            stage.kernel,
            stage.stride,
            stage.expand,
            _round_to_8(stage.channels * width),
        )
        for index, stage in enumerate(_B0)
    ]


def _round_to_8(channels: float) -> int:
    rounded = int(channels + 4) // 8 * 8
    return rounded + 8 if rounded < 0.9 * channels else rounded

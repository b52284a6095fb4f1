"""Builds EfficientNet-Lite in torch, for GPUs and for the torch runtime.

The names of parameters and the padding are those of `lite.layers`.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import nn

from services.embedder.models.lite.layers import (
    DIMENSION,
    NORM_EPSILON,
    STEM,
    Stage,
    same_padding,
    scaled,
)

_CLASSES: Final = 1000


class _SameConv(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding: the far side gets the odd pixel."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int, size: int, groups: int = 1
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, groups=groups, bias=False)
        near, far, self.out_size = same_padding(size, kernel=kernel, stride=stride)
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
    return nn.BatchNorm2d(channels, eps=NORM_EPSILON)


class _Block(nn.Module):
    """An inverted residual; its input has `size` pixels a side."""

    def __init__(self, inputs: int, stage: Stage, *, stride: int, size: int) -> None:
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
        self._conv_stem = _SameConv(3, STEM, 3, stride=2, size=size)
        self._bn0 = _norm(STEM)
        self._blocks = nn.ModuleList()
        channels, side = STEM, self._conv_stem.out_size
        for stage in scaled(width, depth):
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

"""Lists the convolutions of EfficientNet-Lite with their sizes, padding and names.

EfficientNet-Lite is EfficientNet without squeeze-excite, with ReLU6 for swish. Names and padding
are those of the published weights, converted from TensorFlow.
Source: Tan and Le, 2019, and tensorflow/tpu/models/official/efficientnet/lite.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

DIMENSION: Final = 1280
"""The length of a vector: the channels of the last convolution."""

NORM_EPSILON: Final = 1e-3
MEAN: Final = (0.485, 0.456, 0.406)
STD: Final = (0.229, 0.224, 0.225)
"""ImageNet's mean and deviation of red, green and blue, of values from 0 to 1."""

STEM: Final = 32

SCALES: Final[Mapping[str, tuple[float, float]]] = {
    "efficientnet_lite0": (1.0, 1.0),
    "efficientnet_lite1": (1.0, 1.1),
    "efficientnet_lite2": (1.1, 1.2),
}
"""Width and depth of each network; the first and the last stage keep their depth."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Blocks of the same kernel and width; the first one has the stride."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


_B0: Final = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv:
    """A convolution without bias, followed by a batch norm.

    Attributes:
        name: the prefix of its weight in the state dict.
        norm: the prefix of its batch norm.
        near: pixels of padding at the top and the left.
        far: pixels of padding at the bottom and the right.
        depthwise: each output channel sees its own input channel only.
        clipped: ReLU6 follows.
    """

    name: str
    norm: str
    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    near: int = 0
    far: int = 0
    depthwise: bool = False
    clipped: bool = True

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of its weight: outputs, inputs, kernel, kernel."""
        return self.outputs, 1 if self.depthwise else self.inputs, self.kernel, self.kernel


@dataclass(frozen=True, slots=True)
class Block:
    """Convolutions in a row; `skips`: the input is added to the output."""

    convs: Sequence[Conv]
    skips: bool = False


def blocks(size: int, width: float, depth: float) -> Iterator[Block]:
    """Yield the blocks from stem to head, for square images of `size` pixels."""
    near, far, side = same_padding(size, kernel=3, stride=2)
    stem = Conv(
        name="_conv_stem", norm="_bn0", inputs=3, outputs=STEM, kernel=3, stride=2,
        near=near, far=far,
    )  # fmt: skip
    yield Block((stem,))
    channels, number = STEM, 0
    for stage in scaled(width, depth):
        for repeat in range(stage.repeats):
            stride = stage.stride if repeat == 0 else 1
            yield _inverted_residual(f"_blocks.{number}", channels, stage, stride, side)
            channels, number = stage.channels, number + 1
            side = math.ceil(side / stride)
    yield Block((Conv(name="_conv_head", norm="_bn1", inputs=channels, outputs=DIMENSION),))


def _inverted_residual(prefix: str, inputs: int, stage: Stage, stride: int, side: int) -> Block:
    inner = inputs * stage.expand
    near, far, _ = same_padding(side, kernel=stage.kernel, stride=stride)
    expand = Conv(
        name=f"{prefix}._expand_conv", norm=f"{prefix}._bn0", inputs=inputs, outputs=inner
    )
    depthwise = Conv(
        name=f"{prefix}._depthwise_conv", norm=f"{prefix}._bn1", inputs=inner, outputs=inner,
        kernel=stage.kernel, stride=stride, near=near, far=far, depthwise=True,
    )  # fmt: skip
    project = Conv(
        name=f"{prefix}._project_conv", norm=f"{prefix}._bn2", inputs=inner,
        outputs=stage.channels, clipped=False,
    )  # fmt: skip
    convs = (expand, depthwise, project) if stage.expand > 1 else (depthwise, project)
    return Block(convs, skips=stride == 1 and inputs == stage.channels)


def same_padding(size: int, *, kernel: int, stride: int) -> tuple[int, int, int]:
    """Return TensorFlow's SAME padding: near and far pixels, and the side of the output.

    The far side gets the odd pixel.
    """
    side = math.ceil(size / stride)
    total = max((side - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2, side


def scaled(width: float, depth: float) -> Sequence[Stage]:
    """Return the stages of a network of that width and depth."""
    last = len(_B0) - 1
    return [
        Stage(
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

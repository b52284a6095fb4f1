"""The ports for models and runtimes, and the way from image bytes to a model's input.

No runtime is imported here: `runtimes` has a module for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from services.shared import imaging
from services.shared.contracts import Box
from services.shared.errors import InvalidVector
from services.shared.imaging import Limits, Probe

Pixels = npt.NDArray[np.uint8]
"""H,W,3 for one image or N,H,W,3 for a batch: RGB, 0..255."""

Vectors = npt.NDArray[np.float32]
"""N,D."""

_DRAFT: Final = 1.4
"""A JPEG is decoded at least this many times as large as the model needs it.

At 1, libjpeg's coarse filter does nearly all of the scaling of some sizes, and one of 16
neighbours is lost there; at 2, a photograph of 12 megapixels takes a quarter more time, and no
more neighbours are kept.
"""

_HASH_CHARACTERS: Final = 12


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """Identifies a runtime.

    Attributes:
        library: torch, onnxruntime or openvino.
        precision: fp32, bf16 or fp16.
        device: cpu, or the GPU's name.
    """

    library: str
    precision: str
    device: str


class Runtime(Protocol):
    """Runs one network; for one thread at a time unless its class says otherwise."""

    @property
    def info(self) -> RuntimeInfo:
        """The library, precision and device."""

    def embed(self, batch: Pixels) -> Vectors:
        """Compute a vector for each of N prepared images; N,D, of any length but 0."""


class Model(Protocol):
    """Computes the vectors of images for one worker; `prepare` is for several threads."""

    @property
    def model_id(self) -> str:
        """name@weights-hash/preprocessing/dimension: equal strings mean comparable vectors."""

    @property
    def dimension(self) -> int:
        """The length of a vector."""

    @property
    def input_size(self) -> int:
        """The side of the model's square input, in pixels."""

    @property
    def batch_limit(self) -> int:
        """The default for images in one batch, at most: larger batches gain nothing."""

    @property
    def chunk_images(self) -> int:
        """Images that are computed together; a larger batch runs in chunks of this size."""

    @property
    def runtime(self) -> RuntimeInfo:
        """The runtime, for logs and metrics."""

    def prepare(
        self, image: bytes, box: Box | None = None, *, known: Probe | None = None
    ) -> Pixels:
        """Decode an image, or a box of it, to H,W,3 as `embed` takes it.

        Args:
            image: the encoded image.
            box: the part that is embedded; None for the whole image.
            known: the image's probe, where it was made before.

        Raises:
            SimileError: every error of `imaging.decode`.
        """

    def embed(self, batch: Pixels) -> Vectors:
        """Compute a vector for each of N prepared images, in their order; N,D, no length is 0."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Scales the short side to `resize` pixels (bicubic), and takes the middle `crop` pixels."""

    resize: int
    crop: int

    @property
    def draft(self) -> int:
        """The pixels on the short side that a JPEG is decoded to, at least."""
        return round(_DRAFT * self.resize)

    @property
    def name(self) -> str:
        """The name of decoder, filter and crop, for the model id."""
        return f"{imaging.PIXELS}-draft{self.draft}-bicubic-{self.resize}-{self.crop}"

    def prepare(
        self,
        image: bytes,
        limits: Limits,
        box: Box | None = None,
        *,
        known: Probe | None = None,
    ) -> Pixels:
        """Decode an image, or a box of it, to crop,crop,3 (uint8).

        Scaling and cropping are one step, from the original.
        """
        decoded = imaging.decode(image, limits, target=self.draft, box=box, known=known)
        side = min(decoded.size) * self.crop / self.resize
        left, top = ((length - side) / 2 for length in decoded.size)
        middle = (left, top, left + side, top + side)
        square = decoded.resize((self.crop, self.crop), Image.Resampling.BICUBIC, box=middle)
        return np.asarray(square)


def model_id(name: str, weights_sha256: str, preprocessing: Preprocessing, dimension: int) -> str:
    """Name everything that determines a vector: network, weights, preprocessing, dimension."""
    return f"{name}@{weights_sha256[:_HASH_CHARACTERS]}/{preprocessing.name}/{dimension}"


def unit_bytes(vector: Vectors) -> bytes:
    """Scale a vector to length 1, as float32 little-endian.

    Raises:
        InvalidVector: the length is 0, infinite or NaN.
    """
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not np.isfinite(length) or length == 0.0:
        message = f"the model made a vector of length {length}, which has no direction"
        raise InvalidVector(message)
    return (vector / np.float32(length)).astype("<f4").tobytes()

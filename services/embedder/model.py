"""What the pipeline asks of a model, whatever runs it, and the way from image bytes to its input.

No runtime is imported here: torch is in `torch_model`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from services.shared import imaging
from services.shared.errors import InvalidVector

Pixels = npt.NDArray[np.uint8]
"""H,W,3 for one image or N,H,W,3 for a batch: RGB, 0..255."""

Vectors = npt.NDArray[np.float32]
"""N,D."""

_DRAFT: Final = 2
"""A JPEG is decoded at least this many times as large as the model needs it."""

_HASH_CHARACTERS: Final = 12


class Model(Protocol):
    """Makes vectors of images. Both methods may be called from several threads at once."""

    @property
    def model_id(self) -> str:
        """name@weights-hash/preprocessing/dimension: equal strings mean comparable vectors."""

    @property
    def dimension(self) -> int:
        """The length of a vector."""

    @property
    def input_size(self) -> int:
        """The side of the square that the model looks at, in pixels."""

    def prepare(self, image: bytes) -> Pixels:
        """The encoded image's pixels as `embed` takes them. Raises what `imaging.decode` raises."""

    def embed(self, batch: Pixels) -> Vectors:
        """A vector for each of the N prepared images, in their order, of any length but 0."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The short side scaled to `resize` pixels (bicubic), then the `crop` pixels in the middle."""

    resize: int
    crop: int

    @property
    def name(self) -> str:
        """Names decoder, filter and crop, for the model id."""
        draft = _DRAFT * self.resize
        return f"{imaging.PIXELS}-draft{draft}-bicubic-{self.resize}-{self.crop}"

    def prepare(self, image: bytes, limits: imaging.Limits) -> Pixels:
        """The pixels of an encoded image; scaling and cropping are one step, from the original."""
        decoded = imaging.decode(image, limits, target=_DRAFT * self.resize)
        side = min(decoded.size) * self.crop / self.resize
        left, top = ((length - side) / 2 for length in decoded.size)
        box = (left, top, left + side, top + side)
        square = decoded.resize((self.crop, self.crop), Image.Resampling.BICUBIC, box=box)
        return np.asarray(square)


def model_id(name: str, weights_sha256: str, preprocessing: Preprocessing, dimension: int) -> str:
    """The one name of everything that decides what a vector is."""
    return f"{name}@{weights_sha256[:_HASH_CHARACTERS]}/{preprocessing.name}/{dimension}"


def unit_bytes(vector: Vectors) -> bytes:
    """One vector at length 1, as float32 little-endian. Raises InvalidVector for NaN, inf or 0."""
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not np.isfinite(length) or length == 0.0:
        message = f"the model made a vector of length {length}, which has no direction"
        raise InvalidVector(message)
    return (vector / np.float32(length)).astype("<f4").tobytes()

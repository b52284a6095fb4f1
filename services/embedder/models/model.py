"""What the pipeline asks of a model, whatever runs it, and the way from image bytes to its input.

No runtime is imported here: those are in `runtimes`.
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

Pixels = npt.NDArray[np.uint8]
"""H,W,3 for one image or N,H,W,3 for a batch: RGB, 0..255."""

Vectors = npt.NDArray[np.float32]
"""N,D."""

_DRAFT: Final = 1.4
"""A JPEG is decoded at least this many times as large as the model needs it.

At 1 libjpeg's coarse filter does nearly all of the scaling of some sizes and loses one of 16
neighbours there; at 2 a photograph of 12 megapixels takes a quarter more time, and keeps no more.
"""

_HASH_CHARACTERS: Final = 12


@dataclass(frozen=True, slots=True)
class Runs:
    """What runs a network: a library, in which precision, on which device."""

    library: str
    precision: str
    device: str
    """cpu, or the GPU's name."""


class Runtime(Protocol):
    """Runs one network. Not for several threads at once, unless it says so."""

    @property
    def runs(self) -> Runs:
        """What it is."""

    def embed(self, batch: Pixels) -> Vectors:
        """N vectors of N prepared images, of any length but 0."""


class Model(Protocol):
    """Makes vectors of images, for one worker; `prepare` may be called from several threads."""

    @property
    def model_id(self) -> str:
        """name@weights-hash/preprocessing/dimension: equal strings mean comparable vectors."""

    @property
    def dimension(self) -> int:
        """The length of a vector."""

    @property
    def input_size(self) -> int:
        """The side of the square that the model looks at, in pixels."""

    @property
    def batch_limit(self) -> int:
        """More images in a batch gain nothing, unless an operator knows better."""

    @property
    def at_once(self) -> int:
        """So many images are run together; a larger batch is run in parts."""

    @property
    def runtime(self) -> Runs:
        """What runs it, for logs and metrics."""

    def prepare(self, image: bytes, box: Box | None = None) -> Pixels:
        """The pixels of the encoded image, or of a box of it, as `embed` takes them.

        Raises what `imaging.decode` raises.
        """

    def embed(self, batch: Pixels) -> Vectors:
        """A vector for each of the N prepared images, in their order, of any length but 0."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The short side scaled to `resize` pixels (bicubic), then the `crop` pixels in the middle."""

    resize: int
    crop: int

    @property
    def draft(self) -> int:
        """To how many pixels on the short side a JPEG is decoded at the least."""
        return round(_DRAFT * self.resize)

    @property
    def name(self) -> str:
        """Names decoder, filter and crop, for the model id."""
        return f"{imaging.PIXELS}-draft{self.draft}-bicubic-{self.resize}-{self.crop}"

    def prepare(self, image: bytes, limits: imaging.Limits, box: Box | None = None) -> Pixels:
        """The pixels of an encoded image, or of a box of it.

        Scaling and cropping are one step, from the original.
        """
        decoded = imaging.decode(image, limits, target=self.draft, box=box)
        side = min(decoded.size) * self.crop / self.resize
        left, top = ((length - side) / 2 for length in decoded.size)
        middle = (left, top, left + side, top + side)
        square = decoded.resize((self.crop, self.crop), Image.Resampling.BICUBIC, box=middle)
        return np.asarray(square)


@dataclass(frozen=True, slots=True)
class NetworkModel:
    """A network in a runtime, fed as it was trained."""

    model_id: str
    dimension: int
    preprocessing: Preprocessing
    limits: imaging.Limits
    runner: Runtime
    at_once: int
    """Larger batches are run in parts of so many images."""
    batch_limit: int

    @property
    def input_size(self) -> int:
        """The side of the network's input, in pixels."""
        return self.preprocessing.crop

    @property
    def runtime(self) -> Runs:
        """What runs it."""
        return self.runner.runs

    def prepare(self, image: bytes, box: Box | None = None) -> Pixels:
        """The pixels of the image, or of a box of it. Raises what `imaging.decode` raises."""
        return self.preprocessing.prepare(image, self.limits, box)

    def embed(self, batch: Pixels) -> Vectors:
        """N vectors, not of unit length yet."""
        starts = range(0, len(batch), self.at_once)
        parts = [self.runner.embed(batch[start : start + self.at_once]) for start in starts]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


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

"""Makes the vector of a query of the numbers that a caller gave."""

from __future__ import annotations

import math
import struct
from typing import Final

from services.shared.contracts import Box
from services.shared.errors import MalformedRequest
from services.upload.collections import OpenCollection
from services.upload.query.parameters import parse_one
from services.upload.search.embedding_cache import Vector

VECTOR_FIELD: Final = "vector"


def given_vector(text: str, box: Box | None, opened: OpenCollection) -> Vector:
    """Return the vector, scaled to unit length.

    Args:
        text: the numbers, as a JSON list.
        box: the part of an image to search by, which a vector can't have.
        opened: the collection to search.

    Raises:
        MalformedRequest: the collection has vectors of another dimension, the vector has no
            direction, or there is a box.
    """
    manifest = opened.manifest
    numbers: tuple[float, ...] = parse_one(VECTOR_FIELD, text)
    if box is not None:
        message = "box is a part of an image; leave it out of a search by vector"
        raise MalformedRequest(message)
    if len(numbers) != manifest.dimension:
        message = (
            f"vector has {len(numbers)} numbers, those of {manifest.collection!r} have "
            f"{manifest.dimension}; POST /v1/embed makes one of an image"
        )
        raise MalformedRequest(message)
    largest = max(map(abs, numbers))
    if not largest:
        message = "vector has only zeros, and no direction; send another one"
        raise MalformedRequest(message)
    # Divided first: the squares of tiny numbers would all be zero.
    scaled = [number / largest for number in numbers]
    length = math.hypot(*scaled)
    raw = struct.pack(f"<{len(scaled)}f", *(number / length for number in scaled))
    return Vector(manifest.model_id, manifest.dimension, raw)

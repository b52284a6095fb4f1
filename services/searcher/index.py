"""One open index version: verified before it is mapped, then searched from any thread.

It is never unloaded: the maps are freed with the last reference, when its last query has ended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from annoy import AnnoyIndex
from numpy.typing import NDArray

from services.shared import collection as files
from services.shared.collection import ItemCatalog, Manifest
from services.shared.contracts import Neighbor
from services.shared.errors import IndexCorrupt, InvalidVector

Vectors = NDArray[np.float32]
"""Shape (n, dimension); rows are unit length."""

MEASURED_AT: Final = 10
"""The k at which search_k was measured; more neighbours take proportionally more nodes."""

_UNIT_TOLERANCE: Final = 1e-2
_CANARY_DISTANCE: Final = 1e-2
_READ_BYTES: Final = 4 * 2**20


class Index:
    """A version's Annoy file, vectors and items, opened together."""

    def __init__(
        self, manifest: Manifest, annoy: AnnoyIndex, vectors: Vectors, items: ItemCatalog
    ) -> None:
        self.manifest = manifest
        self._annoy = annoy
        self._vectors = vectors
        self._items = items

    @classmethod
    def open(cls, directory: Path, manifest: Manifest) -> Index:
        """Verify sizes and sha256, open, and try the canary queries. Blocking: use a thread.

        Raises IndexCorrupt for any file that is missing or isn't what the manifest says.
        """
        # Before anything is mapped: a damaged Annoy file crashes the process, or lies.
        for name in files.FILES:
            _verify(directory / name, manifest.files[name])
        annoy = AnnoyIndex(manifest.dimension, "angular")
        try:
            annoy.load(str(directory / files.INDEX))
        except OSError as error:
            message = f"{files.INDEX} is no index of dimension {manifest.dimension}: {error}"
            raise IndexCorrupt(message) from error
        vectors: Vectors = np.memmap(
            directory / files.VECTORS,
            dtype="<f4",
            mode="r",
            shape=(manifest.count, manifest.dimension),
        )
        items = ItemCatalog(directory / files.ITEMS)
        if not annoy.get_n_items() == items.count == manifest.count:
            message = (
                f"{manifest.version} has {annoy.get_n_items()} indexed and {items.count} listed "
                f"items where its manifest says {manifest.count}"
            )
            raise IndexCorrupt(message)
        index = cls(manifest, annoy, vectors, items)
        index._try_canaries()
        return index

    def search(self, query: Vectors, k: int) -> list[tuple[int, float]]:
        """The k nearest (position, angular distance), nearest first, for one vector (dimension,).

        Annoy proposes; distances and order are exact, from the stored vectors. Fewer than k only
        where the collection has fewer. Raises InvalidVector.
        """
        _require_unit(query, self.manifest.dimension)
        wanted = min(k, self.manifest.count)
        nodes = self.manifest.search_k * max(1, -(-wanted // MEASURED_AT))
        # A list, not the array: Annoy holds the GIL while it converts, and a list converts faster.
        positions = self._annoy.get_nns_by_vector(query.tolist(), wanted, nodes)
        cosines = self._vectors[positions] @ query
        order = np.argsort(-cosines, kind="stable")
        distances = np.sqrt(np.maximum(0.0, 2.0 - 2.0 * cosines))
        return [(positions[rank], float(distances[rank])) for rank in order]

    def neighbors(self, query: Vectors, k: int, max_distance: float | None) -> list[Neighbor]:
        """The items near one vector (dimension,), nearest first. Raises InvalidVector."""
        found = self.search(query, k)
        if max_distance is not None:
            found = [
                (position, distance) for position, distance in found if distance <= max_distance
            ]
        items = self._items.at([position for position, _ in found])
        return [
            Neighbor(item.item_id, item.label, item.attributes, distance, 1.0 - distance**2 / 2.0)
            for item, (_, distance) in zip(items, found, strict=True)
        ]

    def _try_canaries(self) -> None:
        """Some stored vectors must find an item at no distance: themselves, or a duplicate."""
        for position in self.manifest.canaries:
            try:
                found = self.search(np.array(self._vectors[position]), 1)
            except (IndexError, InvalidVector) as error:
                message = f"canary {position} of {self.manifest.version} fails: {error}"
                raise IndexCorrupt(message) from error
            if not found or found[0][1] > _CANARY_DISTANCE:
                message = f"canary {position} of {self.manifest.version} does not find itself"
                raise IndexCorrupt(message)


def as_vector(raw: bytes) -> Vectors:
    """The vector (dimension,) of a message's bytes."""
    return np.frombuffer(raw, dtype="<f4")


def build_annoy(vectors: Vectors, trees: int, path: Path) -> None:
    """Write an Annoy file over the rows of `vectors`; the same rows give the same trees."""
    annoy = AnnoyIndex(vectors.shape[1], "angular")
    annoy.set_seed(1)
    annoy.on_disk_build(str(path))
    for position, vector in enumerate(vectors):
        annoy.add_item(position, vector.tolist())
    annoy.build(trees)


def measure(vectors: Vectors, path: Path, *, trees: int, target: float) -> tuple[int, float]:
    """The smallest search_k of a doubling series that reaches the recall target, and its recall.

    Recall@10 against exact search, over up to 200 of the vectors themselves. When even a search
    of every item falls short, that search_k and its recall.
    """
    count, dimension = vectors.shape
    annoy = AnnoyIndex(dimension, "angular")
    annoy.load(str(path))
    k = min(MEASURED_AT, count)
    rows = np.linspace(0, count - 1, min(200, count)).astype(int)
    queries = np.array(vectors[rows])
    exact = [_kth_cosine(vectors, query, k) for query in queries]
    search_k, recall = trees * k, 0.0
    while True:
        hits = 0
        for query, bound in zip(queries, exact, strict=True):
            positions = annoy.get_nns_by_vector(query.tolist(), k, search_k)
            # By distance, not by id: of several at the same distance any is right.
            hits += int(np.count_nonzero(vectors[positions] @ query >= bound - 1e-6))
        recall = hits / (k * len(queries))
        if recall >= target or search_k >= 2 * trees * count:
            return search_k, recall
        search_k *= 2


def _kth_cosine(vectors: Vectors, query: Vectors, k: int) -> float:
    cosines = vectors @ query
    return float(np.partition(cosines, len(cosines) - k)[len(cosines) - k])


def _verify(path: Path, expected: files.StoredFile) -> None:
    try:
        found = stored_file(path)
    except OSError as error:
        message = f"{path.name} can't be read: {error}"
        raise IndexCorrupt(message) from error
    if found != expected:
        message = f"{path.name} is not what the manifest says: {found} instead of {expected}"
        raise IndexCorrupt(message)


def stored_file(path: Path) -> files.StoredFile:
    """Size and sha256 of a file; reading it also brings it into the page cache."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as content:
        while block := content.read(_READ_BYTES):
            digest.update(block)
            size += len(block)
    return files.StoredFile(bytes=size, sha256=digest.hexdigest())


def _require_unit(query: Sequence[float] | Vectors, dimension: int) -> None:
    vector = np.asarray(query)
    if vector.shape != (dimension,):
        message = f"the vector has shape {vector.shape}, the index takes ({dimension},)"
        raise InvalidVector(message)
    length = float(np.linalg.norm(vector))
    # NaN compares false: one test refuses NaN, infinity, zero, and what isn't unit length.
    if not abs(length - 1.0) <= _UNIT_TOLERANCE:
        message = f"the vector has length {length}, not 1"
        raise InvalidVector(message)

"""Exports an index version for other programs: its items and vectors, as NumPy or Parquet."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from services.searcher.index.index import Index
from services.searcher.index.scan import Vectors
from services.searcher.progress import Progress
from services.shared.errors import FileUnusable, MissingExtra
from services.shared.volume.items import Item, ItemCatalog
from services.shared.volume.manifest import Manifest
from services.shared.volume.volume import Volume

_ITEMS_AT_ONCE: Final = 4096


@dataclass(frozen=True, slots=True)
class Content:
    """Holds the items and vectors of an index version."""

    manifest: Manifest
    items: ItemCatalog
    vectors: Vectors
    block_items: int = _ITEMS_AT_ONCE

    def blocks(self) -> Iterator[tuple[list[Item], Vectors]]:
        """Yield items with their vectors, shape (items, dimension), by position."""
        items = iter(self.items)
        while block := list(islice(items, self.block_items)):
            first = block[0].position
            yield block, self.vectors[first : first + len(block)]


class Writer(Protocol):
    """Writes the items and vectors of a version into a folder."""

    def write(self, content: Content, folder: Path, progress: Progress) -> None:
        """Write files; report the items that are written."""


class NumpyWriter:
    """Writes vectors.npy, shape (items, dimension), and items.jsonl, an object per row."""

    def write(self, content: Content, folder: Path, progress: Progress) -> None:
        """Write both files."""
        shape = content.vectors.shape
        with (folder / "items.jsonl").open("w", encoding="utf-8") as lines:
            vectors = np.lib.format.open_memmap(
                folder / "vectors.npy", mode="w+", dtype="<f4", shape=shape
            )
            for items, block in content.blocks():
                lines.writelines(f"{json.dumps(_facts(item))}\n" for item in items)
                first = items[0].position
                vectors[first : first + len(items)] = block
                progress.advance(len(items))
            vectors.flush()


class ParquetWriter:
    """Writes items.parquet, a row per item with its vector."""

    def __init__(self) -> None:
        """Raises MissingExtra without pyarrow."""
        try:
            import pyarrow as pa  # noqa: PLC0415 (an optional library)
            import pyarrow.parquet as pq  # noqa: PLC0415
        except ImportError as error:
            message = "an export to Parquet needs pyarrow: pip install pyarrow"
            raise MissingExtra(message) from error
        self._arrow: Any = pa
        self._parquet: Any = pq

    def write(self, content: Content, folder: Path, progress: Progress) -> None:
        """Write the file, a block of rows at a time."""
        schema = self._schema(content.manifest)
        with self._parquet.ParquetWriter(folder / "items.parquet", schema) as file:
            for items, block in content.blocks():
                file.write_table(self._table(items, block, schema))
                progress.advance(len(items))

    def _schema(self, manifest: Manifest) -> Any:  # noqa: ANN401 (pyarrow has no types)
        pa = self._arrow
        texts = [(name, pa.string()) for name in ("item_id", "label", "path")]
        vector = pa.list_(pa.float32(), manifest.dimension)
        attributes = pa.map_(pa.string(), pa.string())
        columns = [*texts, ("attributes", attributes), ("vector", vector)]
        return pa.schema(columns, metadata={"simile": json.dumps(_description(manifest))})

    def _table(self, items: list[Item], block: Vectors, schema: Any) -> Any:  # noqa: ANN401 (as above)
        pa = self._arrow
        values = pa.array(np.ascontiguousarray(block).reshape(-1))
        columns = [
            [item.item_id for item in items],
            [item.label for item in items],
            [item.path for item in items],
            pa.array([list(item.attributes.items()) for item in items], schema.field(3).type),
            pa.FixedSizeListArray.from_arrays(values, block.shape[1]),
        ]
        return pa.table(columns, schema=schema)


def export(
    volume: Volume, collection: str, out: Path, writer: Writer, progress: Progress
) -> Manifest:
    """Write the active version of a collection into the new folder `out`.

    The folder appears when it is complete. `collection.json` in it describes the version.

    Raises UnknownCollection, NoIndex, IndexCorrupt, FileUnusable where the folder exists or can't
    be written.
    """
    index = Index.open(volume, collection, volume.active(collection))
    manifest = index.manifest
    progress.begin("exporting", manifest.count, "items")
    with _new_folder(out) as folder:
        writer.write(Content(manifest, index.items, index.engine.vectors), folder, progress)
        description = json.dumps(_description(manifest), indent=2)
        (folder / "collection.json").write_text(f"{description}\n")
    return manifest


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder that is renamed to `out` at the end, and removed after an error."""
    if out.exists():
        message = f"{out} exists: give a folder that is to be made"
        raise FileUnusable(message)
    staging = out.with_name(f".{out.name}-{secrets.token_hex(4)}")
    try:
        staging.mkdir()
        yield staging
        staging.rename(out)
    except OSError as error:
        message = f"{out} can't be written: {error.strerror or error}"
        raise FileUnusable(message) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _facts(item: Item) -> dict[str, object]:
    return {
        "item_id": item.item_id,
        "label": item.label,
        "path": item.path,
        "attributes": dict(item.attributes),
    }


def _description(manifest: Manifest) -> dict[str, object]:
    return {
        "collection": manifest.collection,
        "index_version": manifest.version,
        "model_id": manifest.model_id,
        "dimension": manifest.dimension,
        "count": manifest.count,
        "images_root": manifest.images_root,
    }

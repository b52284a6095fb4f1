"""Builds the JSON bodies of the API's answers."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import orjson
from aiohttp import web

from services.shared.contracts import Neighbor, Neighbors, Question
from services.shared.messaging.request_reply import Embedded
from services.shared.volume.build_progress import BuildProgress
from services.shared.volume.items import Facet, Facets, Item
from services.shared.volume.manifest import Manifest
from services.upload.collections import Listed, OpenCollection
from services.upload.search.queries import Found, SearchQuery

_FLOAT_BYTES: Final = 4
_FACTS_OF_AN_INDEX: Final = (
    "model_id",
    "dimension",
    "index_version",
    "method",
    "recall",
    "recall_target",
    "created_unix_ms",
)


def json_response(
    body: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return a JSON answer."""
    return json_bytes_response(orjson.dumps(body), headers)


def json_bytes_response(body: bytes, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return an answer whose body is encoded JSON."""
    return web.Response(
        body=body, headers=headers, content_type="application/json", charset="utf-8"
    )


@dataclass(frozen=True, slots=True)
class ItemBodies:
    """Builds the bodies that describe items.

    Attributes:
        show_paths: the bodies name the item's file.
        path_prefix: the path under which a proxy offers Simile.
    """

    show_paths: bool = True
    path_prefix: str = ""

    def search(
        self,
        query: SearchQuery,
        found: Found,
        seconds: Mapping[str, float],
        warnings: Sequence[str],
    ) -> dict[str, Any]:
        """Return the body of an answer to a search; next_cursor is None on the last page.

        seconds: the time of each stage. warnings: possible mistakes of the caller.
        """
        answer = found.neighbors
        return {
            "query_id": query.query_id,
            "collection": answer.collection,
            "index_version": answer.index_version,
            "model_id": answer.model_id,
            "matching": answer.matching,
            "neighbors": [self._neighbor(answer.collection, one) for one in answer.neighbors],
            "next_cursor": answer.next_cursor or None,
            "close_above": answer.close_above,
            "no_close_match": _is_distant(answer, query.question),
            "warnings": list(warnings),
            "timings_ms": milliseconds(seconds),
        }

    def item(self, collection: str, item: Item) -> dict[str, Any]:
        """Return an item's facts and addresses."""
        return {
            "item_id": item.item_id,
            **self._path(item.path),
            "label": item.label,
            "attributes": dict(item.attributes),
            "width": item.width,
            "height": item.height,
            **self._urls(collection, item.item_id),
        }

    def _neighbor(self, collection: str, neighbor: Neighbor) -> dict[str, Any]:
        return {
            "item_id": neighbor.item_id,
            **self._path(neighbor.path),
            "label": neighbor.label,
            "attributes": dict(neighbor.attributes),
            "distance": neighbor.distance,
            "similarity": neighbor.similarity,
            "duplicates": list(neighbor.duplicates),
            **self._urls(collection, neighbor.item_id),
        }

    def _urls(self, collection: str, item_id: str) -> dict[str, str]:
        address = f"{self.path_prefix}/v1/items/{quote(collection)}/{item_id}"
        return {"image_url": f"{address}/image", "thumbnail_url": f"{address}/thumbnail"}

    def _path(self, path: str) -> dict[str, str]:
        return {"path": path} if path and self.show_paths else {}


def embedding_body(
    query_id: str, embedded: Embedded, seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Return the body of an answer with an image's vector."""
    return {
        "query_id": query_id,
        "model_id": embedded.model_id,
        "dimension": embedded.dimension,
        "vector": numbers(embedded.embedding.vector),
        "timings_ms": milliseconds(seconds),
    }


def collection_body(listed: Listed) -> dict[str, Any]:
    """Return a collection's entry; without an index the facts of the index are None."""
    building = None if listed.build is None else _build_body(listed.build)
    if listed.opened is None:
        return {
            "name": listed.name,
            "count": 0,
            **dict.fromkeys(_FACTS_OF_AN_INDEX),
            "building": building,
        }
    manifest = listed.opened.manifest
    return {
        "name": manifest.collection,
        "count": manifest.count,
        "model_id": manifest.model_id,
        "dimension": manifest.dimension,
        "index_version": manifest.version,
        "method": manifest.plan.method,
        "recall": manifest.recall,
        "recall_target": manifest.recall_target,
        "created_unix_ms": manifest.created_unix_ms,
        "building": building,
    }


def version_fact(manifest: Manifest, *, active: bool) -> dict[str, Any]:
    """Return the facts of one version of a collection."""
    return {
        "collection": manifest.collection,
        "index_version": manifest.version,
        "active": active,
        "count": manifest.count,
        "recall": manifest.recall,
        "created_unix_ms": manifest.created_unix_ms,
    }


def _build_body(build: BuildProgress) -> dict[str, Any]:
    return {
        "stage": build.stage,
        "done": build.done,
        "total": build.total,
        "failed": build.failed,
        "eta_seconds": build.eta_seconds,
    }


def facets_body(opened: OpenCollection, facets: Facets) -> dict[str, Any]:
    """Return the labels and attributes that a filter can name."""
    return {
        **version_body(opened),
        "labels": _facets(facets.labels),
        "attributes": {name: _facets(values) for name, values in facets.attributes.items()},
        "label_values": facets.label_values,
        "attribute_values": dict(facets.attribute_values),
    }


def _is_distant(answer: Neighbors, question: Question) -> bool:
    """Return whether the nearest item, which only a first page has, is not close."""
    if answer.close_above is None or question.cursor:
        return False
    return not answer.neighbors or answer.neighbors[0].similarity < answer.close_above


def version_body(opened: OpenCollection) -> dict[str, Any]:
    """Return the collection and the version that an answer is about."""
    return {
        "collection": opened.manifest.collection,
        "index_version": opened.manifest.version,
    }


def numbers(vector: bytes) -> list[float]:
    """Return the values of a vector, from its little-endian float32 bytes."""
    return list(struct.unpack(f"<{len(vector) // _FLOAT_BYTES}f", vector))


def server_timing(seconds: Mapping[str, float]) -> Mapping[str, str]:
    """Return the Server-Timing header, which browsers show in their network panel."""
    entries = (f"{stage};dur={1000 * spent:.3f}" for stage, spent in seconds.items())
    return {"Server-Timing": ", ".join(entries)}


def milliseconds(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return the time of each stage in milliseconds, rounded."""
    return {stage: round(1000 * spent, 3) for stage, spent in seconds.items()}


def _facets(facets: Iterable[Facet]) -> list[dict[str, Any]]:
    return [{"value": facet.value, "count": facet.count} for facet in facets]

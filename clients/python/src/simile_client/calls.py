"""Describes the calls of the API as values, which both clients send."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from simile_client.body import MAX_ANSWER_BYTES
from simile_client.errors import UnexpectedAnswer
from simile_client.images import Field, Image, Upload, text_field
from simile_client.models import (
    BatchAnswer,
    Collection,
    Collections,
    EmbedAnswer,
    Facets,
    Filter,
    ItemOfCollection,
    Items,
    Sample,
    SearchAnswer,
    Status,
)
from simile_client.options import (
    ImageOptions,
    ItemsOptions,
    NeighborOptions,
    VectorOptions,
    parameters,
)

T = TypeVar("T")
P = TypeVar("P", bound="Page")
M = TypeVar("M", bound=BaseModel)


class Page(Protocol):
    """An answer that may have a next page."""

    @property
    def next_cursor(self) -> str | None:
        """The cursor of the next page; None on the last."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request, and the reading of its answer.

    Every call reads, and changes nothing on the server: each may be repeated as often as its
    images can be sent again.

    Attributes:
        path: the path below Simile's address.
        read: reads the answer's content; raises UnexpectedAnswer.
        parameters: fields of the form, where images are sent, or parameters of the query string.
        uploads: the images to send in a form; None where the request has no form.
        body: the body to send as JSON; None where the request has no JSON.
        max_bytes: the bytes of the answer at most, after decompression.
    """

    path: str
    read: Callable[[httpx.Response], T]
    parameters: Mapping[str, str] = field(default_factory=dict)
    uploads: Sequence[Upload] | None = None
    body: Mapping[str, object] | None = None
    max_bytes: int = MAX_ANSWER_BYTES

    @property
    def method(self) -> str:
        """The HTTP method."""
        return "GET" if self.uploads is None and self.body is None else "POST"

    @property
    def query(self) -> Mapping[str, str] | None:
        """The parameters of the query string; a form's are no part of the address."""
        return self.parameters if self.uploads is None else None

    @property
    def repeatable(self) -> bool:
        """True where the request can be sent again."""
        return all(upload.repeatable for upload in self.uploads or ())

    @contextmanager
    def form(self) -> Iterator[list[Field] | None]:
        """Yield the fields of the form; files at paths are open meanwhile."""
        if self.uploads is None:
            yield None
            return
        with ExitStack() as stack:
            fields = [text_field(name, text) for name, text in self.parameters.items()]
            yield fields + [stack.enter_context(upload.field()) for upload in self.uploads]


def search(upload: Upload, cursor: str | None, options: ImageOptions) -> Call[SearchAnswer]:
    """POST /v1/search."""
    sent = parameters({**options, "cursor": cursor})
    return Call("/v1/search", _model(SearchAnswer), sent, [upload])


def search_vector(
    vector: Sequence[float], cursor: str | None, options: VectorOptions
) -> Call[SearchAnswer]:
    """POST /v1/search."""
    given = {"vector": list(vector), **options, "cursor": cursor}
    body = {
        name: value.model_dump(exclude_none=True) if isinstance(value, Filter) else value
        for name, value in given.items()
        if value is not None
    }
    return Call("/v1/search", _model(SearchAnswer), body=body)


def search_batch(images: Iterable[Image], options: ImageOptions) -> Call[BatchAnswer]:
    """POST /v1/search/batch."""
    uploads = [Upload.of(image) for image in images]
    return Call("/v1/search/batch", _model(BatchAnswer), parameters(options), uploads)


def embed(image: Image) -> Call[EmbedAnswer]:
    """POST /v1/embed."""
    return Call("/v1/embed", _model(EmbedAnswer), uploads=[Upload.of(image)])


def similar(
    collection: str, item_id: str, cursor: str | None, options: NeighborOptions
) -> Call[SearchAnswer]:
    """GET /v1/items/{collection}/{item_id}/similar."""
    sent = parameters({**options, "cursor": cursor})
    return Call(f"{_item(collection, item_id)}/similar", _model(SearchAnswer), sent)


def collections() -> Call[Collections]:
    """GET /v1/collections."""
    return Call("/v1/collections", _model(Collections))


def collection(name: str) -> Call[Collection]:
    """GET /v1/collections/{name}."""
    return Call(f"/v1/collections/{_quoted(name)}", _model(Collection))


def facets(name: str) -> Call[Facets]:
    """GET /v1/collections/{name}/facets."""
    return Call(f"/v1/collections/{_quoted(name)}/facets", _model(Facets))


def sample(name: str, count: int | None) -> Call[Sample]:
    """GET /v1/collections/{name}/sample."""
    path = f"/v1/collections/{_quoted(name)}/sample"
    return Call(path, _model(Sample), parameters({"count": count}))


def items(collection: str, cursor: str | None, options: ItemsOptions) -> Call[Items]:
    """GET /v1/items/{collection}."""
    sent = parameters({**options, "cursor": cursor})
    return Call(f"/v1/items/{_quoted(collection)}", _model(Items), sent)


def item(collection: str, item_id: str) -> Call[ItemOfCollection]:
    """GET /v1/items/{collection}/{item_id}."""
    return Call(_item(collection, item_id), _model(ItemOfCollection))


def image(collection: str, item_id: str) -> Call[bytes]:
    """GET /v1/items/{collection}/{item_id}/image."""
    return Call(f"{_item(collection, item_id)}/image", _content)


def thumbnail(collection: str, item_id: str, size: int | None) -> Call[bytes]:
    """GET /v1/items/{collection}/{item_id}/thumbnail."""
    path = f"{_item(collection, item_id)}/thumbnail"
    return Call(path, _content, parameters({"size": size}))


def preview(image: Image, size: int | None) -> Call[bytes]:
    """POST /v1/preview."""
    return Call("/v1/preview", _content, parameters({"size": size}), [Upload.of(image)])


def status() -> Call[Status]:
    """GET /v1/status."""
    return Call("/v1/status", _model(Status))


def _item(collection: str, item_id: str) -> str:
    return f"/v1/items/{_quoted(collection)}/{_quoted(item_id)}"


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _model(kind: type[M]) -> Callable[[httpx.Response], M]:
    """Return a function that reads an answer's JSON as this model."""

    def read(response: httpx.Response) -> M:
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            message = (
                f"{response.url} does not answer as this version of the client expects: is it "
                f"Simile, and of the same version? {error}"
            )
            raise UnexpectedAnswer(message) from error

    return read


def _content(response: httpx.Response) -> bytes:
    return response.content

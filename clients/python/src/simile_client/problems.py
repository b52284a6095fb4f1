"""The errors of Simile's API, by code; `python -m tools.client` writes this module."""

from __future__ import annotations

from typing import Final

from simile_client.errors import ApiError


class BodyTimeout(ApiError):
    """The body did not arrive in time."""


class BoxTooSmall(ApiError):
    """The box holds too few pixels of the image for a comparison."""


class BrokerUnavailable(ApiError):
    """The message broker can't be reached, accepts no messages, or doesn't confirm in time."""


class CollectionRequired(ApiError):
    """The volume holds several collections and the request names none."""


class CursorExpired(ApiError):
    """The index changed since the previous page, so that the cursor is not valid any more."""


class DeadlineExceeded(ApiError):
    """No answer came before the deadline."""


class DecoderCrashed(ApiError):
    """The decoding process crashed, or took more memory than the header implies."""


class DecodingTooSlow(ApiError):
    """Decoding takes much longer than for other images of this size; the image is quarantined."""


class EmptyImage(ApiError):
    """The image has no bytes."""


class ExpectationFailed(ApiError):
    """The header Expect has another value than 100-continue."""


class ExtremeAspect(ApiError):
    """The aspect ratio is beyond the limit: a square crop would show too little of the image."""


class Forbidden(ApiError):
    """The API key lacks the scope, or the request comes from another site's page."""


class HeadTooLarge(ApiError):
    """The request's address or headers are too long; mostly it is a cookie."""


class HostNotAllowed(ApiError):
    """The request's Host header is not an allowed name."""


class ImageGone(ApiError):
    """The item's image file is missing, can't be read, or was replaced by something else."""


class ImageQuarantined(ApiError):
    """Several embedders crashed while they processed the image; it is quarantined."""


class ImageTooLarge(ApiError):
    """The image has more bytes than the limit."""


class IndexBuilding(ApiError):
    """The collection's first index is being built; the answer has its progress."""


class Internal(ApiError):
    """A defect or an unforeseen fault; the log line has the traceback."""


class MalformedRequest(ApiError):
    """The request can't be understood: a missing field, a wrong type, a value out of range."""


class ModelMismatch(ApiError):
    """The query and the index come from different models, whose vectors can't be compared."""


class NoEmbedder(ApiError):
    """No embedder takes images from the queue: none runs, or none has loaded its model yet."""


class NoIndex(ApiError):
    """The collection has no active, verified index version at this searcher."""


class NoSearcher(ApiError):
    """No searcher takes queries from the queue: none runs, or none has opened an index yet."""


class Overloaded(ApiError):
    """The limit of queries in flight, or of a queue, is reached."""


class RateLimited(ApiError):
    """The API key, or the address of a caller without one, sends more queries than allowed."""


class ReplyQueueLost(ApiError):
    """The reply queue was lost while the query was in flight; its answer can't arrive."""


class ShuttingDown(ApiError):
    """This replica is stopping and takes no new queries."""


class TooManyPixels(ApiError):
    """The image has more pixels than the limit."""


class Unauthenticated(ApiError):
    """The request has no API key, or an unknown one."""


class UndecodableImage(ApiError):
    """The file is truncated or corrupt, or repeats the same data too many times."""


class UnknownCollection(ApiError):
    """No collection of that name is on the volume."""


class UnknownItem(ApiError):
    """The collection holds no item with that id."""


class UnknownRoute(ApiError):
    """No route of the API has this path."""


class Unroutable(ApiError):
    """The broker has no queue of this name."""


class UnsupportedCoding(ApiError):
    """The body has a content coding, such as gzip; send it without one."""


class UnsupportedFormat(ApiError):
    """The bytes are not an image of an accepted format."""


class UrlNotAllowed(ApiError):
    """Simile does not fetch images from this address: its host, port or scheme is not allowed."""


class UrlUnreachable(ApiError):
    """The image's address does not answer, answers with an error, or is too slow."""


BY_CODE: Final[dict[str, type[ApiError]]] = {
    "body_timeout": BodyTimeout,
    "box_too_small": BoxTooSmall,
    "broker_unavailable": BrokerUnavailable,
    "collection_required": CollectionRequired,
    "cursor_expired": CursorExpired,
    "deadline_exceeded": DeadlineExceeded,
    "decoder_crashed": DecoderCrashed,
    "decoding_too_slow": DecodingTooSlow,
    "empty_image": EmptyImage,
    "expectation_failed": ExpectationFailed,
    "extreme_aspect": ExtremeAspect,
    "forbidden": Forbidden,
    "head_too_large": HeadTooLarge,
    "host_not_allowed": HostNotAllowed,
    "image_gone": ImageGone,
    "image_quarantined": ImageQuarantined,
    "image_too_large": ImageTooLarge,
    "index_building": IndexBuilding,
    "internal": Internal,
    "malformed_request": MalformedRequest,
    "model_mismatch": ModelMismatch,
    "no_embedder": NoEmbedder,
    "no_index": NoIndex,
    "no_searcher": NoSearcher,
    "overloaded": Overloaded,
    "rate_limited": RateLimited,
    "reply_queue_lost": ReplyQueueLost,
    "shutting_down": ShuttingDown,
    "too_many_pixels": TooManyPixels,
    "unauthenticated": Unauthenticated,
    "undecodable_image": UndecodableImage,
    "unknown_collection": UnknownCollection,
    "unknown_item": UnknownItem,
    "unknown_route": UnknownRoute,
    "unroutable": Unroutable,
    "unsupported_coding": UnsupportedCoding,
    "unsupported_format": UnsupportedFormat,
    "url_not_allowed": UrlNotAllowed,
    "url_unreachable": UrlUnreachable,
}

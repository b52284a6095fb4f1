"""The one error tree: every failure a caller or an operator can meet, each with a stable code.

A code travels unchanged into the reply, the problem body, the log line and the metric label.
"""

from __future__ import annotations

from typing import ClassVar


class SimileError(Exception):
    """Base of all named failures; `str(error)` says what happened and what to do next.

    code: the stable name, snake_case. status: the HTTP status it answers with.
    retry_after_seconds: when trying again can help, after how long; else None. One error may know
    better than its class.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something broke inside Simile"
    retry_after_seconds: int | None = None


# What the caller sent


class MalformedRequest(SimileError):
    """The request can't be understood: a missing field, a wrong type, a value out of range."""

    code = "malformed_request"
    status = 400
    title = "The request is malformed"


class EmptyImage(MalformedRequest):
    """The image has no bytes."""

    code = "empty_image"
    title = "The image is empty"


class UrlNotAllowed(MalformedRequest):
    """An image's address is one that Simile does not fetch from: its host, port or scheme."""

    code = "url_not_allowed"
    title = "Simile does not fetch from that address"


class Unauthenticated(SimileError):
    """No API key came with the request, or none that is known."""

    code = "unauthenticated"
    status = 401
    title = "An API key is needed"


class Forbidden(SimileError):
    """The API key is known, but may not do this; or another site's page asks with its cookie."""

    code = "forbidden"
    status = 403
    title = "That is not allowed"


class HostNotAllowed(SimileError):
    """The request's Host is a name that this Simile does not answer to."""

    code = "host_not_allowed"
    status = 421
    title = "This name is not answered here"


class ExpectationFailed(SimileError):
    """The header Expect asks for something other than 100-continue."""

    code = "expectation_failed"
    status = 417
    title = "That expectation can't be met"


class CollectionRequired(MalformedRequest):
    """The volume holds several collections and the request names none."""

    code = "collection_required"
    title = "Name a collection"


class UnknownCollection(SimileError):
    """No collection of that name is on the volume."""

    code = "unknown_collection"
    status = 404
    title = "No such collection"


class UnknownItem(SimileError):
    """The collection holds no item with that id."""

    code = "unknown_item"
    status = 404
    title = "No such item"


class ImageGone(UnknownItem):
    """The item's image file is missing, can't be read, or was replaced by something else."""

    code = "image_gone"
    title = "The item's image is gone"


class UnknownRoute(SimileError):
    """No route of the API has this path."""

    code = "unknown_route"
    status = 404
    title = "No such address"


class MethodNotAllowed(SimileError):
    """The route exists, the method doesn't."""

    code = "method_not_allowed"
    status = 405
    title = "This address takes another method"


class CursorExpired(SimileError):
    """The index changed since the page before: there is no page after it any more."""

    code = "cursor_expired"
    status = 410
    title = "The index changed between two pages"


class BodyTimeout(SimileError):
    """The body did not arrive in time."""

    code = "body_timeout"
    status = 408
    title = "The body took too long"


class ImageTooLarge(SimileError):
    """The image has more bytes than the limit."""

    code = "image_too_large"
    status = 413
    title = "The image has too many bytes"


class TooManyPixels(SimileError):
    """The header declares more pixels than the limit: a decompression bomb or a scan."""

    code = "too_many_pixels"
    status = 413
    title = "The image has too many pixels"


class DecodingTooSlow(SimileError):
    """The image's pixels take far more time than images of its size do; it was set aside."""

    code = "decoding_too_slow"
    status = 422
    title = "The image takes too long to decode"


class DecoderCrashed(SimileError):
    """The image ended the process that decoded it, or took more memory than its header says."""

    code = "decoder_crashed"
    status = 422
    title = "The image stops its decoder"


class ImageQuarantined(SimileError):
    """Embedders died with the image in hand, again and again; it was set aside."""

    code = "image_quarantined"
    status = 422
    title = "The image stops embedders"


class UnsupportedFormat(SimileError):
    """The bytes are no image of an accepted format."""

    code = "unsupported_format"
    status = 415
    title = "Not an accepted image format"


class UnsupportedCoding(SimileError):
    """The body has a content coding, such as gzip; Simile undoes none."""

    code = "unsupported_coding"
    status = 415
    title = "Bodies must come without a content coding"


class UndecodableImage(SimileError):
    """The file is truncated or corrupt, or makes a decoder repeat the same work again and again."""

    code = "undecodable_image"
    status = 422
    title = "The image can't be decoded"


class ExtremeAspect(SimileError):
    """One side is so much longer than the other that a square crop shows nothing of the image."""

    code = "extreme_aspect"
    status = 422
    title = "The image is too long and thin"


class BoxTooSmall(SimileError):
    """The box holds too few pixels of the image to be compared with anything."""

    code = "box_too_small"
    status = 422
    title = "The box holds too little of the image"


class UrlUnreachable(SimileError):
    """The image's address did not give an image's bytes: no such host, an error, too slow."""

    code = "url_unreachable"
    status = 422
    title = "The image can't be fetched"


class RateLimited(SimileError):
    """The API key, or the address of a caller without one, asks more often than it may."""

    code = "rate_limited"
    status = 429
    title = "Too many queries"
    retry_after_seconds = 1


# What the system can't do now


class Overloaded(SimileError):
    """A bound on work in flight is reached: at the door or in a queue that refuses."""

    code = "overloaded"
    status = 503
    title = "Too much is going on"
    retry_after_seconds = 1


class BrokerUnavailable(SimileError):
    """The message broker is away, blocked, or doesn't confirm in time."""

    code = "broker_unavailable"
    status = 503
    title = "The message broker is away"
    retry_after_seconds = 1


class Unroutable(BrokerUnavailable):
    """The broker has no such queue: nobody would ever receive the message."""

    code = "unroutable"
    title = "Nobody listens on that queue"


class ReplyQueueLost(BrokerUnavailable):
    """The queue that the answer would have come to is gone; the answer can't arrive any more."""

    code = "reply_queue_lost"
    title = "The way back for the answer is gone"


class ShuttingDown(SimileError):
    """This replica drains and takes no new work."""

    code = "shutting_down"
    status = 503
    title = "This replica is stopping"
    retry_after_seconds = 1


class NoIndex(SimileError):
    """The collection has no active, verified index version at this searcher."""

    code = "no_index"
    status = 503
    title = "The collection has no index yet"
    retry_after_seconds = 5


class IndexBuilding(NoIndex):
    """The collection's first index is being built; the answer says how far it is."""

    code = "index_building"
    title = "The collection is being prepared"


class NoEmbedder(SimileError):
    """No embedder takes images from the queue: none runs, or none has loaded its model yet."""

    code = "no_embedder"
    status = 503
    title = "No embedder is running"
    retry_after_seconds = 5


class NoSearcher(SimileError):
    """No searcher takes queries from the queue: none runs, or none has opened an index yet."""

    code = "no_searcher"
    status = 503
    title = "No searcher is running"
    retry_after_seconds = 5


class ModelMismatch(SimileError):
    """Query and index come from different models: their vectors can't be compared."""

    code = "model_mismatch"
    status = 503
    title = "Query and index come from different models"
    retry_after_seconds = 30


class DeadlineExceeded(SimileError):
    """No answer came before the deadline."""

    code = "deadline_exceeded"
    status = 504
    title = "No answer in time"
    retry_after_seconds = 1


class Internal(SimileError):
    """A defect or a fault nobody foresaw; the log line has the traceback."""


class InvalidVector(SimileError):
    """A vector has the wrong length, isn't finite, or is zero."""

    code = "invalid_vector"
    title = "A vector is unusable"


# What an operator meets: these never travel in a reply


class UndecodableMessage(SimileError):
    """A message body isn't what its type says."""

    code = "undecodable_message"
    title = "A message can't be decoded"


class UnknownRecord(SimileError):
    """The quarantine holds no record of that id."""

    code = "unknown_record"
    title = "No such record in quarantine"


class NotReplayable(SimileError):
    """A record of the quarantine holds no image that could be tried again."""

    code = "not_replayable"
    title = "The record can't be replayed"


class Unsendable(SimileError):
    """The broker can't carry the message: a queue's name, its headers or its body are too long."""

    code = "unsendable"
    title = "The broker can't carry the message"


class ConsumerLost(SimileError):
    """The connection, channel or queue under a consumer is gone: consume again."""

    code = "consumer_lost"
    title = "A consumer lost its queue"


class WrongAnswer(SimileError):
    """A canary's answer does not hold the item that it asked by, nor one just like it."""

    code = "wrong_answer"
    title = "A canary does not find itself"


class Disconnected(SimileError):
    """The caller went away before the answer; what was still in hand was given up."""

    code = "disconnected"
    title = "The caller went away"


class IndexCorrupt(SimileError):
    """An index version on the volume fails a check and was not opened."""

    code = "index_corrupt"
    title = "An index version fails its checks"


class UnknownVersion(SimileError):
    """The collection has no such index version."""

    code = "unknown_version"
    title = "No such index version"


class BuildInProgress(SimileError):
    """Another build of this collection holds its lock."""

    code = "build_in_progress"
    title = "This collection is being built already"


class BuildFailed(SimileError):
    """An index build can't go on; what it embedded so far is kept for the next run."""

    code = "build_failed"
    title = "The index build failed"


class InvalidRow(SimileError):
    """A row of manifest.csv can't be used: no path, too many cells, or a path given before."""

    code = "invalid_row"
    title = "A row of manifest.csv can't be used"


class WeightsUnavailable(SimileError):
    """The model's weights can't be had or don't fit the model."""

    code = "weights_unavailable"
    title = "The model's weights can't be loaded"


class RuntimeUnfit(SimileError):
    """A runtime makes other vectors of the network than torch does; it is not used."""

    code = "runtime_unfit"
    title = "The runtime does not compute this network well enough"


class ModelBroken(SimileError):
    """The model fails on everything: a new process may find its device mended."""

    code = "model_broken"
    title = "The model does not work any more"


class DecodersStuck(SimileError):
    """More threads are stuck in images than there are spares: a new process begins afresh."""

    code = "decoders_stuck"
    title = "No thread is left to decode"


class StageDied(SimileError):
    """A supervised task or worker thread ended; the process can't do its job any more."""

    code = "stage_died"
    title = "A part of the process died"


class InvalidSettings(SimileError):
    """A setting is missing or out of range."""

    code = "invalid_settings"
    title = "A setting is wrong"


class FileUnusable(SimileError):
    """A file or folder that a command was given, or needs, can't be read or written."""

    code = "file_unusable"
    title = "A file can't be used"


class MissingExtra(SimileError):
    """The command needs a library that is not installed; the message says how to install it."""

    code = "missing_extra"
    title = "An optional library is missing"


class Unreachable(SimileError):
    """No Simile answers at that address."""

    code = "unreachable"
    title = "Simile can't be reached"


def _tree(root: type[SimileError]) -> dict[str, type[SimileError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


def by_code() -> dict[str, type[SimileError]]:
    """Every error class by its code."""
    return _tree(SimileError)


def from_code(code: str, detail: str) -> SimileError:
    """The error that a `Failure` message names; an unknown code (a newer peer) is `Internal`."""
    return by_code().get(code, Internal)(detail)

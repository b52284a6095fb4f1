"""Defines the errors that callers and operators can meet, each with a stable code.

A code travels unchanged into the reply, the problem body, the log line and the metric label. All
errors are in this one file, longer than others, since docs/errors.md and its order are made from
it, and a new error is compared with its neighbours.
"""

from __future__ import annotations

from typing import ClassVar


class SimileError(Exception):
    """Base of all named failures; `str(error)` says what happened and what to do next.

    Attributes:
        code: the stable name, in snake_case.
        status: the HTTP status of an answer with this error.
        title: one line for people, the same for all errors of the class.
        retry_after_seconds: after how long a retry can help; None where it can't. An instance may
            set another value than its class.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    retry_after_seconds: int | None = None


# Errors in a request


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
    """Simile does not fetch images from this address: its host, port or scheme is not allowed."""

    code = "url_not_allowed"
    title = "Images are not fetched from this address"


class Unauthenticated(SimileError):
    """The request has no API key, or an unknown one."""

    code = "unauthenticated"
    status = 401
    title = "An API key is needed"


class Forbidden(SimileError):
    """The API key lacks the scope, or the request comes from another site's page."""

    code = "forbidden"
    status = 403
    title = "The request is not allowed"


class HostNotAllowed(SimileError):
    """The request's Host header is not an allowed name."""

    code = "host_not_allowed"
    status = 421
    title = "The host name is not allowed"


class ExpectationFailed(SimileError):
    """The header Expect has another value than 100-continue."""

    code = "expectation_failed"
    status = 417
    title = "The expectation can't be met"


class CollectionRequired(MalformedRequest):
    """The volume holds several collections and the request names none."""

    code = "collection_required"
    title = "The request must name a collection"


class UnknownCollection(SimileError):
    """No collection of that name is on the volume."""

    code = "unknown_collection"
    status = 404
    title = "The collection does not exist"


class UnknownItem(SimileError):
    """The collection holds no item with that id."""

    code = "unknown_item"
    status = 404
    title = "The item does not exist"


class ImageGone(UnknownItem):
    """The item's image file is missing, can't be read, or was replaced by something else."""

    code = "image_gone"
    title = "The item's image is missing"


class UnknownRoute(SimileError):
    """No route of the API has this path."""

    code = "unknown_route"
    status = 404
    title = "The path does not exist"


class MethodNotAllowed(SimileError):
    """The path exists, but not for this method."""

    code = "method_not_allowed"
    status = 405
    title = "The method is not allowed"


class HeadTooLarge(SimileError):
    """The request's address or headers are too long; mostly it is a cookie."""

    code = "head_too_large"
    status = 431
    title = "The request's headers are too large"


class CursorExpired(SimileError):
    """The index changed since the previous page, so that the cursor is not valid any more."""

    code = "cursor_expired"
    status = 410
    title = "The cursor is not valid any more"


class BodyTimeout(SimileError):
    """The body did not arrive in time."""

    code = "body_timeout"
    status = 408
    title = "The body did not arrive in time"


class ImageTooLarge(SimileError):
    """The image has more bytes than the limit."""

    code = "image_too_large"
    status = 413
    title = "The image has too many bytes"


class TooManyPixels(SimileError):
    """The image has more pixels than the limit."""

    code = "too_many_pixels"
    status = 413
    title = "The image has too many pixels"


class DecodingTooSlow(SimileError):
    """Decoding takes much longer than for other images of this size; the image is quarantined."""

    code = "decoding_too_slow"
    status = 422
    title = "The image takes too long to decode"


class DecoderCrashed(SimileError):
    """The decoding process crashed, or took more memory than the header implies."""

    code = "decoder_crashed"
    status = 422
    title = "The image crashes the decoder"


class ImageQuarantined(SimileError):
    """Several embedders crashed while they processed the image; it is quarantined."""

    code = "image_quarantined"
    status = 422
    title = "The image crashes embedders"


class UnsupportedFormat(SimileError):
    """The bytes are not an image of an accepted format."""

    code = "unsupported_format"
    status = 415
    title = "The image format is not supported"


class UnsupportedCoding(SimileError):
    """The body has a content coding, such as gzip; send it without one."""

    code = "unsupported_coding"
    status = 415
    title = "Content codings are not supported"


class UndecodableImage(SimileError):
    """The file is truncated or corrupt, or repeats the same data too many times."""

    code = "undecodable_image"
    status = 422
    title = "The image can't be decoded"


class ExtremeAspect(SimileError):
    """The aspect ratio is beyond the limit: a square crop would show too little of the image."""

    code = "extreme_aspect"
    status = 422
    title = "The image's aspect ratio is too large"


class BoxTooSmall(SimileError):
    """The box holds too few pixels of the image for a comparison."""

    code = "box_too_small"
    status = 422
    title = "The box is too small"


class UrlUnreachable(SimileError):
    """The image's address does not answer, answers with an error, or is too slow."""

    code = "url_unreachable"
    status = 422
    title = "The image can't be fetched"


class RateLimited(SimileError):
    """The API key, or the address of a caller without one, sends more queries than allowed."""

    code = "rate_limited"
    status = 429
    title = "Too many queries"
    retry_after_seconds = 1


# Requests that the system can't answer now


class Overloaded(SimileError):
    """The limit of queries in flight, or of a queue, is reached."""

    code = "overloaded"
    status = 503
    title = "Too many queries in flight"
    retry_after_seconds = 1


class BrokerUnavailable(SimileError):
    """The message broker can't be reached, accepts no messages, or doesn't confirm in time."""

    code = "broker_unavailable"
    status = 503
    title = "The message broker is not available"
    retry_after_seconds = 1


class Unroutable(BrokerUnavailable):
    """The broker has no queue of this name."""

    code = "unroutable"
    title = "The queue does not exist"


class ReplyQueueLost(BrokerUnavailable):
    """The reply queue was lost while the query was in flight; its answer can't arrive."""

    code = "reply_queue_lost"
    title = "The reply queue was lost"


class ShuttingDown(SimileError):
    """This replica is stopping and takes no new queries."""

    code = "shutting_down"
    status = 503
    title = "This replica is stopping"
    retry_after_seconds = 1


class NoIndex(SimileError):
    """The collection has no active, verified index version at this searcher."""

    code = "no_index"
    status = 503
    title = "The collection has no index"
    retry_after_seconds = 5


class IndexBuilding(NoIndex):
    """The collection's first index is being built; the answer has its progress."""

    code = "index_building"
    title = "The collection is being built"


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
    """The query and the index come from different models, whose vectors can't be compared."""

    code = "model_mismatch"
    status = 503
    title = "Query and index come from different models"
    retry_after_seconds = 30


class DeadlineExceeded(SimileError):
    """No answer came before the deadline."""

    code = "deadline_exceeded"
    status = 504
    title = "The deadline passed without an answer"
    retry_after_seconds = 1


class Internal(SimileError):
    """A defect or an unforeseen fault; the log line has the traceback."""


class InvalidVector(SimileError):
    """A vector has the wrong length, is not finite, or is zero."""

    code = "invalid_vector"
    title = "The vector is invalid"


# Errors for operators, which are in no reply


class UndecodableMessage(SimileError):
    """The body of a message does not match its type."""

    code = "undecodable_message"
    title = "The message can't be decoded"


class UnknownRecord(SimileError):
    """The quarantine holds no record of that id."""

    code = "unknown_record"
    title = "The record does not exist"


class NotReplayable(SimileError):
    """The quarantined record holds no image that an embedder could process again."""

    code = "not_replayable"
    title = "The record can't be replayed"


class Unsendable(SimileError):
    """The message is too large for the broker: its queue's name, headers or body are too long."""

    code = "unsendable"
    title = "The message is too large for the broker"


class ConsumerLost(SimileError):
    """The connection, channel or queue of a consumer is gone; the service consumes again."""

    code = "consumer_lost"
    title = "A consumer lost its queue"


class WrongAnswer(SimileError):
    """The answer to a canary does not contain the canary's own item, nor one just like it."""

    code = "wrong_answer"
    title = "A canary got a wrong answer"


class Disconnected(SimileError):
    """The caller disconnected before the answer; its work was cancelled."""

    code = "disconnected"
    title = "The caller disconnected"


class IndexCorrupt(SimileError):
    """An index version on the volume fails a check and is not opened."""

    code = "index_corrupt"
    title = "The index version is corrupt"


class UnknownVersion(SimileError):
    """The collection has no such index version."""

    code = "unknown_version"
    title = "The index version does not exist"


class BuildInProgress(SimileError):
    """Another build of this collection is running."""

    code = "build_in_progress"
    title = "The collection is already being built"


class BuildFailed(SimileError):
    """An index build failed; the vectors made so far are kept for the next run."""

    code = "build_failed"
    title = "The index build failed"


class ImagesMissing(BuildFailed):
    """Images of the version before are missing from the folder, as after a disk was unmounted."""

    code = "images_missing"
    title = "Many images are no longer there"


class FolderUnreadable(SimileError):
    """A sub-folder of a collection can't be read."""

    code = "folder_unreadable"
    title = "The folder can't be read"


class InvalidRow(SimileError):
    """A row of manifest.csv has no path, too many cells, or a path of an earlier row."""

    code = "invalid_row"
    title = "The row of manifest.csv is invalid"


class WeightsUnavailable(SimileError):
    """The model's weights can't be downloaded or read, or don't fit the model."""

    code = "weights_unavailable"
    title = "The model's weights can't be loaded"


class RuntimeUnfit(SimileError):
    """A runtime's vectors differ from those of torch; it is not used."""

    code = "runtime_unfit"
    title = "The runtime's vectors are not accurate enough"


class ModelBroken(SimileError):
    """The model fails on every batch; the process restarts, since its device may recover."""

    code = "model_broken"
    title = "The model fails on every batch"


class DecodersStuck(SimileError):
    """Too many threads are stuck in decoding; the process restarts."""

    code = "decoders_stuck"
    title = "No decoding thread is left"


class StageDied(SimileError):
    """A supervised task or worker thread ended; the process ends and is restarted."""

    code = "stage_died"
    title = "A stage of the process died"


class InvalidSettings(SimileError):
    """A setting is missing or out of range."""

    code = "invalid_settings"
    title = "A setting is invalid"


class OtherFolder(InvalidSettings):
    """A collection of this name holds the images of another folder."""

    code = "other_folder"
    title = "The collection holds another folder"


class FileUnusable(SimileError):
    """A file or folder can't be read or written."""

    code = "file_unusable"
    title = "The file can't be used"


class MissingExtra(SimileError):
    """The command needs a library that is not installed; the message says how to install it."""

    code = "missing_extra"
    title = "An optional library is missing"


class Unreachable(SimileError):
    """Simile does not answer at this address."""

    code = "unreachable"
    title = "Simile can't be reached"


def _tree(root: type[SimileError]) -> dict[str, type[SimileError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


def by_code() -> dict[str, type[SimileError]]:
    """Return every error class by its code."""
    return _tree(SimileError)


def from_code(code: str, detail: str) -> SimileError:
    """Return the error that a `Failure` message names; an unknown code becomes `Internal`."""
    return by_code().get(code, Internal)(detail)

"""Encodes messages as protobuf and decodes them; no other module uses the generated classes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from services.shared import contracts
from services.shared.contracts import bounds
from services.shared.contracts import messages_pb2 as pb
from services.shared.errors import UndecodableMessage

_In = TypeVar("_In")
_Out = TypeVar("_Out")

_TYPES: Final[Mapping[type[contracts.AnyMessage], str]] = {
    contracts.EmbedRequest: "simile.v1.EmbedRequest",
    contracts.Embeddings: "simile.v1.Embeddings",
    contracts.Replies: "simile.v1.Replies",
}


def encode(message: contracts.AnyMessage) -> tuple[str, bytes]:
    """Return the message's type name (the AMQP property `type`) and its body."""
    body: Message
    match message:
        case contracts.EmbedRequest():
            body = pb.EmbedRequest(slip=_slip_out(message.slip), image=message.image)
        case contracts.Embeddings():
            body = _embeddings_out(message)
        case contracts.Replies():
            body = pb.Replies(items=[_reply_out(reply) for reply in message.items])
    return _TYPES[type(message)], body.SerializeToString()


def decode(type_name: str, body: bytes) -> contracts.AnyMessage:
    """Return the message that `body` holds.

    Raises:
        UndecodableMessage: the type is unknown, the bytes don't parse, or values break the
            contract (no correlation id, a vector of the wrong length, a text beyond its bound).
    """
    if type_name in _TYPES.values():
        bounds.check_body(type_name, body)
    try:
        match type_name:
            case "simile.v1.EmbedRequest":
                return _embed_request_in(pb.EmbedRequest.FromString(body))
            case "simile.v1.Embeddings":
                return _embeddings_in(pb.Embeddings.FromString(body))
            case "simile.v1.Replies":
                return _replies_in(pb.Replies.FromString(body))
    except (DecodeError, UnicodeDecodeError) as error:
        message = f"a {type_name} message of {len(body)} bytes does not parse: {error}"
        raise UndecodableMessage(message) from error
    message = f"unknown message type {type_name!r}: is a peer newer than this service?"
    raise UndecodableMessage(message)


def _slip_out(slip: contracts.Slip) -> pb.Slip:
    question = slip.question
    out = pb.Slip(
        correlation_id=slip.correlation_id,
        reply_to=slip.reply_to,
        final_reply_to=slip.final_reply_to,
        deadline_unix_ms=slip.deadline_unix_ms,
        traceparent=slip.traceparent,
        collection=question.collection,
        k=question.k,
        max_distance=question.max_distance,
        collapse=question.collapse,
        filter=None if question.filter is None else _filter_out(question.filter),
        cursor=question.cursor,
        exclude=question.exclude,
        box=None if slip.box is None else _box_out(slip.box),
        return_vector=slip.return_vector,
        canary=slip.canary,
    )
    if slip.newer:
        out.MergeFromString(slip.newer)
    return out


def _slip_in(slip: pb.Slip) -> contracts.Slip:
    decoded = contracts.Slip(
        correlation_id=slip.correlation_id,
        reply_to=slip.reply_to,
        final_reply_to=slip.final_reply_to,
        deadline_unix_ms=slip.deadline_unix_ms,
        traceparent=slip.traceparent,
        question=contracts.Question(
            collection=slip.collection,
            k=slip.k,
            max_distance=slip.max_distance if slip.HasField("max_distance") else None,
            collapse=slip.collapse if slip.HasField("collapse") else None,
            filter=_filter_in(slip.filter) if slip.HasField("filter") else None,
            cursor=slip.cursor,
            exclude=slip.exclude,
        ),
        box=_box_in(slip.box) if slip.HasField("box") else None,
        return_vector=slip.return_vector,
        canary=slip.canary,
        newer=_newer_fields(slip),
    )
    bounds.check_slip(decoded)
    return decoded


def _newer_fields(slip: pb.Slip) -> bytes:
    """Return the fields that messages.proto of this release doesn't know."""
    if len(UnknownFieldSet(slip)) == 0:
        return b""
    rest = pb.Slip()
    rest.CopyFrom(slip)
    for known in pb.Slip.DESCRIPTOR.fields:
        rest.ClearField(known.name)  # type: ignore[arg-type]  # the stubs want literal names
    newer = rest.SerializeToString()
    bounds.check_newer(newer)
    return newer


def _filter_out(wanted: contracts.Filter) -> pb.Filter:
    attributes = {name: pb.Values(values=values) for name, values in wanted.attributes.items()}
    return pb.Filter(labels=wanted.labels, attributes=attributes)


def _filter_in(wanted: pb.Filter) -> contracts.Filter:
    attributes = {name: tuple(values.values) for name, values in wanted.attributes.items()}
    return contracts.Filter(tuple(wanted.labels), attributes)


def _box_out(box: contracts.Box) -> pb.Box:
    return pb.Box(left=box.left, top=box.top, width=box.width, height=box.height)


def _box_in(box: pb.Box) -> contracts.Box:
    return contracts.Box(box.left, box.top, box.width, box.height)


def _stages_out(stages: contracts.Stages) -> list[pb.StageDuration]:
    return [pb.StageDuration(stage=stage, seconds=seconds) for stage, seconds in stages.items()]


def _stages_in(entries: Collection[pb.StageDuration]) -> contracts.Stages:
    stages = {entry.stage: entry.seconds for entry in entries}
    bounds.check_stages(stages, len(entries))
    return stages


def _embed_request_in(request: pb.EmbedRequest) -> contracts.EmbedRequest:
    return contracts.EmbedRequest(slip=_slip_in(request.slip), image=request.image)


def _embeddings_out(message: contracts.Embeddings) -> pb.Embeddings:
    items = [
        pb.Embedding(
            slip=_slip_out(item.slip),
            vector=item.vector,
            stages=_stages_out(item.stages),
            batch_images=item.batch_images,
        )
        for item in message.items
    ]
    return pb.Embeddings(model_id=message.model_id, dimension=message.dimension, items=items)


def _embeddings_in(message: pb.Embeddings) -> contracts.Embeddings:
    bounds.require(len(message.items) <= contracts.MAX_ITEMS, "a message has too many items")
    bounds.check_text("model id", message.model_id)
    items, refused = _valid(partial(_embedding_in, message.dimension), message.items)
    return contracts.Embeddings(message.model_id, message.dimension, items, refused)


def _embedding_in(dimension: int, item: pb.Embedding) -> contracts.Embedding:
    bounds.require(len(item.vector) == 4 * dimension, "a vector has the wrong length")
    return contracts.Embedding(
        _slip_in(item.slip), item.vector, _stages_in(item.stages), item.batch_images
    )


def _valid(
    decode_one: Callable[[_In], _Out], items: Collection[_In]
) -> tuple[tuple[_Out, ...], tuple[str, ...]]:
    """Decode items one by one. Raises UndecodableMessage when none of them is valid."""
    valid, refused = list[_Out](), list[str]()
    for item in items:
        try:
            valid.append(decode_one(item))
        except UndecodableMessage as error:
            refused.append(str(error))
    bounds.require(bool(valid) or not refused, "; ".join(refused[:1]))
    return tuple(valid), tuple(refused)


def _reply_out(reply: contracts.Reply) -> pb.Reply:
    stages = _stages_out(reply.stages)
    match reply.outcome:
        case contracts.Failure(code, detail):
            failure = pb.Failure(code=code, detail=bounds.truncate(detail))
            return pb.Reply(
                correlation_id=reply.correlation_id,
                failure=failure,
                stages=stages,
                batch_images=reply.batch_images,
            )
        case contracts.Neighbors() as found:
            neighbors = pb.Neighbors(
                collection=found.collection,
                index_version=found.index_version,
                model_id=found.model_id,
                neighbors=[_neighbor_out(neighbor) for neighbor in found.neighbors],
                matching=found.matching,
                next_cursor=found.next_cursor,
                close_above=found.close_above,
            )
            return pb.Reply(
                correlation_id=reply.correlation_id,
                neighbors=neighbors,
                stages=stages,
                vector=reply.vector,
                batch_images=reply.batch_images,
            )


def _neighbor_out(neighbor: contracts.Neighbor) -> pb.Neighbor:
    message = pb.Neighbor(
        item_id=neighbor.item_id,
        label=neighbor.label,
        distance=neighbor.distance,
        similarity=neighbor.similarity,
        duplicates=neighbor.duplicates,
        path=neighbor.path,
    )
    # As an argument a mapping goes through generic Python code, which takes twice as long.
    attributes = message.attributes
    for name, value in neighbor.attributes.items():
        attributes[name] = value
    return message


def _replies_in(message: pb.Replies) -> contracts.Replies:
    bounds.require(len(message.items) <= contracts.MAX_ITEMS, "a message has too many items")
    return contracts.Replies(*_valid(_reply_in, message.items))


def _reply_in(reply: pb.Reply) -> contracts.Reply:
    bounds.require(bool(reply.correlation_id), "a reply has no correlation id")
    bounds.check_text("correlation id", reply.correlation_id)
    outcome: contracts.Neighbors | contracts.Failure
    match reply.WhichOneof("outcome"):
        case "neighbors":
            outcome = _neighbors_in(reply.neighbors)
        case "failure":
            outcome = _failure_in(reply.failure)
        case _:
            message = "a reply has neither neighbours nor a failure"
            raise UndecodableMessage(message)
    stages = _stages_in(reply.stages)
    return contracts.Reply(reply.correlation_id, outcome, stages, reply.vector, reply.batch_images)


def _failure_in(failure: pb.Failure) -> contracts.Failure:
    bounds.check_text("failure's code", failure.code)
    # Truncated instead of refused: a peer of an older release sends all of it.
    return contracts.Failure(failure.code, bounds.truncate(failure.detail))


def _neighbors_in(found: pb.Neighbors) -> contracts.Neighbors:
    bounds.check_answer(found)
    neighbors = tuple(
        contracts.Neighbor(
            item_id=neighbor.item_id,
            label=neighbor.label,
            attributes=_attributes_in(neighbor.attributes),
            distance=neighbor.distance,
            similarity=neighbor.similarity,
            duplicates=tuple(neighbor.duplicates),
            path=neighbor.path,
        )
        for neighbor in found.neighbors
    )
    bounds.check_neighbors(neighbors)
    return contracts.Neighbors(
        found.collection,
        found.index_version,
        found.model_id,
        neighbors,
        found.matching,
        found.next_cursor,
        found.close_above if found.HasField("close_above") else None,
    )


def _attributes_in(attributes: Mapping[str, str]) -> Mapping[str, str]:
    # `dict` would go through generic Python code, as above.
    return {name: attributes[name] for name in attributes}

"""Messages beyond a bound are refused by name before they cost memory or time."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from services.shared import contracts
from services.shared.contracts import bounds, codec
from services.shared.contracts import messages_pb2 as pb
from services.shared.errors import UndecodableMessage

REQUEST = "simile.v1.EmbedRequest"
EMBEDDINGS = "simile.v1.Embeddings"
REPLIES = "simile.v1.Replies"
NAN = float("nan")


def _slip(**fields: object) -> pb.Slip:
    sound = {"correlation_id": "c", "reply_to": "r", "final_reply_to": "f", "k": 10}
    return pb.Slip(**{**sound, **fields})  # type: ignore[arg-type]


def _filter(labels: int = 0, attributes: int = 0, size: int = 1) -> pb.Filter:
    named = {f"{number:03}": pb.Values(values=["x"]) for number in range(attributes)}
    return pb.Filter(labels=["x" * size] * labels, attributes=named)


HOSTILE_SLIPS = {
    "correlation id": _slip(correlation_id="x" * 256),
    "correlation id of a megabyte": _slip(correlation_id="x" * 2**20),
    "reply_to": _slip(reply_to="x" * 256),
    "reply_to of few characters and many bytes": _slip(reply_to="\u20ac" * 86),
    "final_reply_to": _slip(final_reply_to="x" * 256),
    "traceparent": _slip(traceparent="x" * 256),
    "collection": _slip(collection="x" * 256),
    "exclude": _slip(exclude="x" * 256),
    "cursor": _slip(cursor="x" * 8193),
    "max_distance": _slip(max_distance=2.5),
    "max_distance NaN": _slip(max_distance=NAN),
    "collapse": _slip(collapse=-0.5),
    "collapse NaN": _slip(collapse=NAN),
    "box beyond the image": _slip(box=pb.Box(left=0, top=0, width=1.5, height=1)),
    "box NaN": _slip(box=pb.Box(left=NAN, top=0, width=1, height=1)),
    "filter of many labels": _slip(filter=_filter(labels=201)),
    "filter of many attributes": _slip(filter=_filter(attributes=101)),
    "filter of many bytes": _slip(filter=_filter(labels=2, size=5000)),
    "deadline": _slip(deadline_unix_ms=-1),
}


@pytest.mark.parametrize("slip", HOSTILE_SLIPS.values(), ids=HOSTILE_SLIPS)
def test_a_slip_beyond_a_bound_is_refused(slip: pb.Slip) -> None:
    """Each text, list and number of a slip has a bound, in requests and in embeddings."""
    request = pb.EmbedRequest(slip=slip, image=b"x").SerializeToString()
    with pytest.raises(UndecodableMessage):
        codec.decode(REQUEST, request)
    made = pb.Embeddings(
        model_id="m", dimension=1, items=[pb.Embedding(slip=slip, vector=bytes(4))]
    )
    with pytest.raises(UndecodableMessage):
        codec.decode(EMBEDDINGS, made.SerializeToString())


def test_a_slip_at_its_bounds_is_taken() -> None:
    """The longest permitted texts are decoded, and encoded again unchanged."""
    slip = _slip(
        correlation_id="x" * 255, reply_to="\u20ac" * 85, final_reply_to="x" * 255,
        cursor="x" * contracts.MAX_CURSOR, exclude="x" * 255, max_distance=2.0, collapse=0.0,
        filter=_filter(labels=90), box=pb.Box(left=0, top=0, width=1, height=1),
    )  # fmt: skip
    body = pb.EmbedRequest(slip=slip, image=b"x").SerializeToString()
    message = codec.decode(REQUEST, body)
    assert pb.EmbedRequest.FromString(codec.encode(message)[1]).slip == slip


def _reply(**fields: object) -> pb.Reply:
    return pb.Reply(**{"correlation_id": "c", "neighbors": pb.Neighbors(), **fields})  # type: ignore[arg-type]


def _answer(**fields: object) -> pb.Reply:
    return _reply(neighbors=pb.Neighbors(neighbors=[pb.Neighbor(**fields)]))  # type: ignore[arg-type]


HOSTILE_REPLIES = {
    "correlation id": _reply(correlation_id="x" * 256),
    "many stages": _reply(stages=[pb.StageDuration(stage="s", seconds=1)] * 65),
    "stage name": _reply(stages=[pb.StageDuration(stage="s" * 256, seconds=1)]),
    "stage NaN": _reply(stages=[pb.StageDuration(stage="s", seconds=NAN)]),
    "failure code": _reply(failure=pb.Failure(code="x" * 256)),
    "many neighbours": _reply(neighbors=pb.Neighbors(neighbors=[pb.Neighbor()] * 101)),
    "next cursor": _reply(neighbors=pb.Neighbors(next_cursor="x" * 8193)),
    "version": _reply(neighbors=pb.Neighbors(index_version="x" * 256)),
    "close above": _reply(neighbors=pb.Neighbors(close_above=1.5)),
    "close above NaN": _reply(neighbors=pb.Neighbors(close_above=NAN)),
    "distance NaN": _answer(distance=NAN),
    "similarity infinite": _answer(similarity=float("inf")),
    "many duplicates": _answer(duplicates=["x"] * 1001),
}


@pytest.mark.parametrize("reply", HOSTILE_REPLIES.values(), ids=HOSTILE_REPLIES)
def test_a_reply_beyond_a_bound_is_refused(reply: pb.Reply) -> None:
    """A reply with more than a searcher sends, or with invalid numbers, is refused."""
    with pytest.raises(UndecodableMessage):
        codec.decode(REPLIES, pb.Replies(items=[reply]).SerializeToString())


def test_an_item_beyond_a_bound_is_left_out_alone() -> None:
    """The valid items of a message are decoded, and the message lists the refused ones."""
    slips = [_slip(correlation_id="a"), HOSTILE_SLIPS["reply_to"], _slip(correlation_id="b")]
    vectors = [pb.Embedding(slip=slip, vector=bytes(4)) for slip in slips]
    vectors.append(pb.Embedding(slip=_slip(), vector=b"short"))
    made = pb.Embeddings(model_id="m", dimension=1, items=vectors)
    embeddings = codec.decode(EMBEDDINGS, made.SerializeToString())
    assert isinstance(embeddings, contracts.Embeddings)
    assert [item.slip.correlation_id for item in embeddings.items] == ["a", "b"]
    assert ["reply_to" in embeddings.refused[0], "length" in embeddings.refused[1]] == [True] * 2
    answers = pb.Replies(items=[_reply(), HOSTILE_REPLIES["distance NaN"]])
    replies = codec.decode(REPLIES, answers.SerializeToString())
    assert isinstance(replies, contracts.Replies)
    assert (len(replies.items), len(replies.refused)) == (1, 1)


def test_a_long_detail_is_cut_on_both_sides() -> None:
    """A long text is cut at a character when sent, and also when an older peer sent it."""
    sent = contracts.Replies((contracts.Reply("c", contracts.Failure("code", "\u20ac" * 9999)),))
    arrived = codec.decode(*codec.encode(sent))
    assert isinstance(arrived, contracts.Replies)
    outcome = arrived.items[0].outcome
    assert isinstance(outcome, contracts.Failure)
    assert outcome.detail == "\u20ac" * (bounds.MAX_DETAIL_BYTES // 3)
    older = pb.Replies(items=[_reply(failure=pb.Failure(code="code", detail="x" * 9999))])
    (reply,) = codec.decode(REPLIES, older.SerializeToString()).items  # type: ignore[union-attr]
    assert reply.outcome == contracts.Failure("code", "x" * 4096)  # type: ignore[union-attr]


def _field(number: int, content: bytes) -> bytes:
    size, out = len(content), bytearray([number << 3 | 2])
    while size > 127:
        out.append(0x80 | size & 127)
        size >>= 7
    return bytes(out) + bytes([size]) + content


MANY = 2**19
BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a request's slip of empty labels": (
        REQUEST, lambda: _field(1, _field(10, b"\x0a\x00" * MANY)),
    ),
    "a request of many slips": (REQUEST, lambda: b"\x0a\x00" * MANY),
    "embeddings of empty items": (EMBEDDINGS, lambda: b"\x1a\x00" * MANY),
    "an embedding of empty stages": (EMBEDDINGS, lambda: _field(3, b"\x1a\x00" * MANY)),
    "replies of empty items": (REPLIES, lambda: b"\x0a\x00" * MANY),
    "a reply of empty stages": (REPLIES, lambda: _field(1, b"\x22\x00" * MANY)),
    "a reply of empty neighbours": (
        REPLIES, lambda: _field(1, _field(2, b"\x22\x00" * MANY)),
    ),
    "groups": (REQUEST, lambda: b"\x0b" * MANY),
    "a field beyond the end": (REQUEST, lambda: b"\x0a\xff\xff\xff\xff\x0f" + bytes(MANY)),
    "a number without an end": (REQUEST, lambda: b"\xff" * MANY),
    "more bytes than an answer has": (REPLIES, lambda: bytes(17 * 2**20)),
}  # fmt: skip


@pytest.mark.parametrize(("type_name", "body"), BOMBS.values(), ids=BOMBS)
def test_a_large_body_is_not_parsed_before_its_parts_are_counted(
    monkeypatch: pytest.MonkeyPatch, type_name: str, body: Callable[[], bytes]
) -> None:
    """A body of millions of empty parts is refused before protobuf builds an object for each."""

    def parsed(_: bytes) -> None:
        pytest.fail("the body was parsed")

    for message in (pb.EmbedRequest, pb.Embeddings, pb.Replies):
        monkeypatch.setattr(pb, message.DESCRIPTOR.name, _Unparsed(parsed))
    bomb = body()
    tracemalloc.start()
    try:
        with pytest.raises(UndecodableMessage):
            codec.decode(type_name, bomb)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


class _Unparsed:
    """Stands in for a generated message, and fails when it is parsed."""

    def __init__(self, parsed: Callable[[bytes], None]) -> None:
        self.FromString = parsed


def test_large_honest_messages_are_taken() -> None:
    """A full list of long vectors, a large image, and a reply of many duplicates are decoded."""
    slip = contracts.Slip(correlation_id="c", reply_to="r", final_reply_to="f")
    stages = dict.fromkeys(("embed_queue", "decode", "batch_wait", "model"), 0.1)
    embedding = contracts.Embedding(slip, bytes(4 * 4096), stages, 8)
    neighbor = contracts.Neighbor("i" * 16, "label", {"by": "x"}, 0.5, 0.9, ("d" * 16,) * 100)
    found = contracts.Neighbors("c", "v", "m", (neighbor,) * 100, 10_000, "x" * 5000)
    for message in (
        contracts.EmbedRequest(slip, bytes(3 * 2**20)),
        contracts.Embeddings("m", 4096, (embedding,) * contracts.MAX_ITEMS),
        contracts.Replies((contracts.Reply("c", found, stages, bytes(16384)),) * 8),
    ):
        name, body = codec.encode(message)
        assert len(body) > 2**18
        decoded = codec.decode(name, body)
        assert codec.encode(decoded) == (name, body)

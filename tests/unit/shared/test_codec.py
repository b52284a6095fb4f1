"""The codec restores every message from its bytes, and rejects broken bytes by name."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.shared import contracts
from services.shared.contracts import codec
from services.shared.contracts import messages_pb2 as pb
from services.shared.errors import UndecodableMessage

_words = st.text(min_size=1, max_size=20)
_seconds = st.floats(min_value=0, max_value=1e6, allow_nan=False)
_float32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
_stages = st.dictionaries(_words, _seconds, max_size=4)

_unit = st.floats(0, 1, width=32)
_questions = st.builds(
    contracts.Question,
    collection=st.text(max_size=63),
    k=st.integers(0, contracts.MAX_NEIGHBORS),
    max_distance=st.none() | st.floats(0, 2, width=32),
    collapse=st.none() | st.floats(0, 2, width=32),
    filter=st.none()
    | st.builds(
        contracts.Filter,
        st.lists(_words, max_size=3).map(tuple),
        st.dictionaries(_words, st.lists(_words, max_size=3).map(tuple), max_size=3),
    ),
    cursor=st.text(max_size=20),
    exclude=st.text(max_size=20),
)
slips = st.builds(
    contracts.Slip,
    correlation_id=_words,
    reply_to=_words,
    final_reply_to=_words,
    deadline_unix_ms=st.integers(0, 2**53),
    traceparent=st.text(max_size=55),
    question=_questions,
    box=st.none() | st.builds(contracts.Box, _unit, _unit, _unit, _unit),
    return_vector=st.booleans(),
    canary=st.booleans(),
)
embed_requests = st.builds(contracts.EmbedRequest, slips, st.binary(max_size=200))
embeddings = st.integers(1, 8).flatmap(
    lambda dimension: st.builds(
        contracts.Embeddings,
        _words,
        st.just(dimension),
        st.lists(
            st.builds(
                contracts.Embedding,
                slips,
                st.binary(min_size=4 * dimension, max_size=4 * dimension),
                _stages,
            ),
            max_size=contracts.MAX_ITEMS,
        ).map(tuple),
    )
)
neighbors = st.builds(
    contracts.Neighbor,
    item_id=_words,
    label=st.text(max_size=20),
    attributes=st.dictionaries(_words, st.text(max_size=20), max_size=3),
    distance=_float32,
    similarity=_float32,
    duplicates=st.lists(_words, max_size=3).map(tuple),
    path=st.text(max_size=20),
)
outcomes = st.builds(contracts.Failure, _words, st.text(max_size=50)) | st.builds(
    contracts.Neighbors,
    _words,
    _words,
    _words,
    st.lists(neighbors, max_size=4).map(tuple),
    st.integers(0, 2**53),
    st.text(max_size=20),
    st.none() | st.floats(-1, 1),
)
replies = st.builds(
    contracts.Replies,
    st.lists(st.builds(contracts.Reply, _words, outcomes, _stages), max_size=4).map(tuple),
)


@given(embed_requests | embeddings | replies)
def test_a_message_survives_the_way_through_bytes(message: contracts.AnyMessage) -> None:
    """Decoding an encoded message gives an equal message."""
    assert codec.decode(*codec.encode(message)) == message


@given(
    st.sampled_from(["simile.v1.EmbedRequest", "simile.v1.Embeddings", "simile.v1.Replies"]),
    st.binary(max_size=300),
)
def test_any_bytes_decode_or_fail_by_name(type_name: str, body: bytes) -> None:
    """Hostile bytes give a message or UndecodableMessage, never another error."""
    try:
        codec.decode(type_name, body)
    except UndecodableMessage as error:
        assert str(error)  # noqa: PT017 (both outcomes are right; errors need a text)


@given(
    embed_requests | embeddings | replies,
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=5),
    st.integers(0, 2**16),
)
def test_damaged_bytes_decode_or_fail_by_name(
    message: contracts.AnyMessage, changes: list[tuple[int, int]], length: int
) -> None:
    """A valid message with changed or missing bytes gives a message or UndecodableMessage."""
    type_name, sound = codec.encode(message)
    body = bytearray(sound)
    for place, value in changes if body else []:
        body[place % len(body)] = value
    try:
        codec.decode(type_name, bytes(body[: length % (len(body) + 1)]))
    except UndecodableMessage as error:
        assert str(error)  # noqa: PT017 (as above)


def test_an_unknown_type_is_named() -> None:
    """A type of a newer peer is refused by its name."""
    with pytest.raises(UndecodableMessage, match=r"simile\.v9\.Unheard"):
        codec.decode("simile.v9.Unheard", b"")


SLIP = pb.Slip(correlation_id="c", reply_to="r", final_reply_to="f", k=10)


@pytest.mark.parametrize(
    ("type_name", "message"),
    [
        ("simile.v1.EmbedRequest", pb.EmbedRequest(image=b"x")),
        ("simile.v1.EmbedRequest", pb.EmbedRequest(slip=pb.Slip(correlation_id="c"))),
        (
            "simile.v1.EmbedRequest",
            pb.EmbedRequest(
                slip=pb.Slip(correlation_id="c", reply_to="r", final_reply_to="f", k=101)
            ),
        ),
        (
            "simile.v1.Embeddings",
            pb.Embeddings(dimension=2, items=[pb.Embedding(slip=SLIP, vector=b"1234")]),
        ),
        ("simile.v1.Replies", pb.Replies(items=[pb.Reply(correlation_id="c")])),
        (
            "simile.v1.Replies",
            pb.Replies(items=[pb.Reply(correlation_id="c", failure=pb.Failure(code="x"))] * 33),
        ),
    ],
    ids=["no slip", "no reply to", "k too large", "short vector", "no outcome", "too many"],
)
def test_a_message_that_breaks_the_contract_is_refused(type_name: str, message: pb.Replies) -> None:
    """Bytes that parse but break the contract are undecodable, too."""
    with pytest.raises(UndecodableMessage):
        codec.decode(type_name, message.SerializeToString())


def test_a_vector_is_float32_little_endian() -> None:
    """The bytes of a vector pass through unchanged."""
    vector = struct.pack("<2f", 0.6, 0.8)
    slip = contracts.Slip(correlation_id="c", reply_to="r", final_reply_to="f")
    message = contracts.Embeddings("m", 2, (contracts.Embedding(slip, vector),))
    decoded = codec.decode(*codec.encode(message))
    assert isinstance(decoded, contracts.Embeddings)
    assert struct.unpack("<2f", decoded.items[0].vector) == pytest.approx((0.6, 0.8))


def test_a_slip_expires_at_its_deadline() -> None:
    """A deadline of 0 means none; a query at its deadline is expired.

    A deadline that passed longer ago than any queue keeps a query comes from a wrong clock.
    """
    slip = contracts.Slip(correlation_id="c", reply_to="r", final_reply_to="f", deadline_unix_ms=5)
    assert [slip.expired(now) for now in (4, 5, 6)] == [False, True, True]
    latest = 5 + contracts.MAX_LATE_MS
    assert [slip.expired(now) for now in (latest, latest + 1)] == [True, False]
    forever = contracts.Slip(correlation_id="c", reply_to="r", final_reply_to="f")
    assert not forever.expired(2**60)
    assert not forever.expired(1)


_MINIMAL = contracts.Slip(correlation_id="id", reply_to="next", final_reply_to="last")
# Field 1000, a string, stands for a field that a later release adds to a slip.
_NEWER = bytes([0xC2, 0x3E, 5]) + b"later"


def test_an_older_service_passes_on_what_it_does_not_know() -> None:
    """A newer upload's slip reaches a newer searcher unchanged through an older embedder."""
    sent = pb.EmbedRequest.FromString(codec.encode(contracts.EmbedRequest(_MINIMAL, b"image"))[1])
    sent.slip.MergeFromString(_NEWER)
    request = codec.decode("simile.v1.EmbedRequest", sent.SerializeToString())
    assert isinstance(request, contracts.EmbedRequest)
    made = contracts.Embeddings("model", 1, (contracts.Embedding(request.slip, bytes(4)),))
    arrived = pb.Embeddings.FromString(codec.encode(made)[1])
    assert arrived.items[0].slip == sent.slip
    assert _NEWER in arrived.items[0].slip.SerializeToString()


def test_a_newer_service_takes_an_older_one_s_message() -> None:
    """Fields that an older peer doesn't send have the default that they always meant."""
    least = pb.Slip(correlation_id="id", reply_to="next", final_reply_to="last", k=10)
    request = codec.decode(
        "simile.v1.EmbedRequest", pb.EmbedRequest(slip=least, image=b"i").SerializeToString()
    )
    assert isinstance(request, contracts.EmbedRequest)
    assert request.slip == _MINIMAL


def test_newer_fields_of_any_message_are_no_error() -> None:
    """Unknown fields of a message are ignored."""
    for message in (
        contracts.EmbedRequest(_MINIMAL, b"image"),
        contracts.Embeddings("model", 1, ()),
        contracts.Replies(()),
    ):
        name, body = codec.encode(message)
        assert codec.decode(name, body + _NEWER) == message

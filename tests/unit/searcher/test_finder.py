"""An open index answers bounds, filters, pages and folding with every method."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.searcher.index import paging
from services.searcher.index.finder import Finder
from services.searcher.index.folding import fold
from services.searcher.index.index import Index
from services.searcher.index.methods import registry
from services.searcher.index.paging import MAX_SHOWN
from services.searcher.index.scan import Vectors
from services.shared.contracts import Filter, Neighbor, Neighbors, Question
from services.shared.errors import CursorExpired, Internal, MalformedRequest, SimileError
from services.shared.volume.items import Item
from services.shared.volume.manifest import MethodName
from services.shared.volume.volume import Volume
from tests.support.volume import items, publish_version, unit_vectors

COUNT = 400
ASK = Question(collection="birds")
METHODS = [*registry.METHODS]


def _listed(count: int) -> list[Item]:
    """Return items of ten labels with two attributes."""
    return [
        dataclasses.replace(
            item,
            item_id=f"id{item.position}",
            label=f"kind {item.position % 10}",
            attributes={"half": str(item.position % 2), "number": str(item.position)},
        )
        for item in items(count)
    ]


def _finder(
    tmp_path: Path,
    vectors: Vectors,
    method: MethodName = "annoy",
    *,
    number: int = 0,
) -> Finder:
    volume = Volume(tmp_path)
    manifest = publish_version(
        volume, "birds", vectors, _listed(len(vectors)), method=method, number=number
    )
    return Finder(Index.open(volume, "birds", manifest.version))


def _ask(finder: Finder, vector: Vectors, **asked: object) -> Neighbors:
    (answer,) = finder.find([vector], [dataclasses.replace(ASK, **asked)])  # type: ignore[arg-type]
    if isinstance(answer, SimileError):
        raise answer
    return answer


def _ids(neighbors: tuple[Neighbor, ...]) -> list[str]:
    return [neighbor.item_id for neighbor in neighbors]


def _sorted_by_distance(vectors: Vectors, query: Vectors) -> list[int]:
    order: list[int] = np.argsort(-(vectors @ query), kind="stable").tolist()
    return order


def test_a_neighbour_names_its_file(tmp_path: Path) -> None:
    """The answer holds each item's path, so that upload need not look it up."""
    vectors = unit_vectors(20)
    found = _ask(_finder(tmp_path, vectors), vectors[7], k=3).neighbors
    paths = {f"id{item.position}": item.path for item in items(20)}
    assert [one.path for one in found] == [paths[one.item_id] for one in found]
    assert found[0].path == "image-7.jpg"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("limit", [0, 10**9])
def test_a_filter_finds_every_item_that_passes(
    tmp_path: Path, method: MethodName, limit: int
) -> None:
    """Over-fetching and scanning find exactly the nearest matching items, as many as exist."""
    vectors, query = unit_vectors(COUNT), unit_vectors(1, seed=2)[0]
    finder = Finder(_finder(tmp_path, vectors, method).index, scanned_bytes=limit)
    nearest = _sorted_by_distance(vectors, query)
    for wanted, passing in (
        (Filter(labels=("kind 3",)), [one for one in nearest if one % 10 == 3]),
        (Filter(labels=("kind 3", "kind 4")), [one for one in nearest if one % 10 in {3, 4}]),
        (Filter((), {"half": ("1",)}), [one for one in nearest if one % 2]),
        (Filter(("kind 3",), {"half": ("0",)}), []),
        (Filter((), {"number": ("7", "9", "12")}), [one for one in nearest if one in {7, 9, 12}]),
        (Filter((), {"colour": ("red",)}), []),
    ):
        answer = _ask(finder, query, filter=wanted, k=50)
        assert _ids(answer.neighbors) == [f"id{one}" for one in passing[:50]]
        assert answer.matching == len(passing)
        assert bool(answer.next_cursor) == (len(passing) > 50)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("wanted", [None, Filter((), {"half": ("1",)})], ids=["all", "filtered"])
def test_pages_together_are_the_whole_answer(
    tmp_path: Path, method: MethodName, wanted: Filter | None
) -> None:
    """The pages hold each match once, nearest first, until the end."""
    vectors, query = unit_vectors(COUNT), unit_vectors(1, seed=2)[0]
    finder = _finder(tmp_path, vectors, method)
    passing = [one for one in _sorted_by_distance(vectors, query) if wanted is None or one % 2 == 1]
    found, cursor = list[str](), ""
    while True:
        answer = _ask(finder, query, k=60, filter=wanted, cursor=cursor)
        found += _ids(answer.neighbors)
        cursor = answer.next_cursor
        if not cursor:
            break
    assert sorted(found) == sorted(f"id{one}" for one in passing)
    assert found[:60] == [f"id{one}" for one in passing[:60]]


def test_paging_ends_after_its_bound(tmp_path: Path) -> None:
    """The last page within the limit has no cursor, though more items match."""
    finder = _finder(tmp_path, unit_vectors(1300), "exact")
    query, cursor, shown = unit_vectors(1, seed=2)[0], "", 0
    while True:
        answer = _ask(finder, query, k=100, cursor=cursor)
        shown, cursor = shown + len(answer.neighbors), answer.next_cursor
        if not cursor:
            break
    assert shown == MAX_SHOWN
    assert answer.matching == 1300


def test_a_cursor_of_another_version_has_expired(tmp_path: Path) -> None:
    """After a swap the caller must start again, instead of getting items of both versions."""
    query = unit_vectors(1, seed=2)[0]
    cursor = _ask(_finder(tmp_path, unit_vectors(COUNT)), query).next_cursor
    newer = _finder(tmp_path, unit_vectors(COUNT), number=1)
    with pytest.raises(CursorExpired):
        _ask(newer, query, cursor=cursor)


@pytest.mark.parametrize(
    "change",
    [
        {"filter": Filter(("kind 1",))},
        {"collapse": 0.5},
        {"max_distance": 1.0},
        {"exclude": "id3"},
        {"cursor": "AAAA"},
        {"cursor": "é"},
        {"cursor": "x"},
    ],
    ids=str,
)
def test_a_cursor_of_another_question_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    """A cursor belongs to a single question, and other text to none."""
    finder, query = _finder(tmp_path, unit_vectors(COUNT)), unit_vectors(1, seed=2)[0]
    cursor = _ask(finder, query).next_cursor
    with pytest.raises((MalformedRequest, CursorExpired)):
        _ask(finder, query, **{"cursor": cursor, **change})


def test_a_truncated_cursor_is_refused(tmp_path: Path) -> None:
    """Every prefix of a cursor is refused or read as a shorter list."""
    finder, query = _finder(tmp_path, unit_vectors(COUNT)), unit_vectors(1, seed=2)[0]
    cursor = _ask(finder, query, k=100).next_cursor
    for end in range(1, len(cursor)):
        try:
            answer = _ask(finder, query, cursor=cursor[:end])
        except (MalformedRequest, CursorExpired):
            continue
        assert len(answer.neighbors) == 10


def _steps(*steps: int) -> bytes:
    """Return positions as a cursor holds them: steps from the one before, as varints."""
    body = bytearray()
    for step in steps:
        rest = step
        while rest > 127:
            body.append(0x80 | rest & 127)
            rest >>= 7
        body.append(rest)
    return bytes(body)


FORGED = {
    "a position that wraps to -1": _steps(2**64 - 1),
    "a sum that wraps to a negative position": _steps(2**63 - 1, 2**63 - 1),
    "a sum that wraps to a sound position": _steps(2**63, 2**63 + 5),
    "a position beyond int64": _steps(2**70),
    "a position that is the number of items": _steps(COUNT),
    "a sum that is the number of items": _steps(COUNT - 1, 1),
    "an item twice": _steps(3, 0),
    "zeros": _steps(0, 0, 0),
    "a number in a longer form": b"\x83\x00",
    "a number without its end": b"\x83",
    "continuation bytes without an end": b"\x80" * 5000,
}


@pytest.mark.parametrize("body", FORGED.values(), ids=FORGED)
@pytest.mark.parametrize("collapse", [None, 0.1])
def test_a_forged_cursor_is_refused_and_fails_alone(
    tmp_path: Path, body: bytes, collapse: float | None
) -> None:
    """The forged query gets 400 `malformed_request`; the other queries get their answers."""
    finder, queries = _finder(tmp_path, unit_vectors(COUNT)), list(unit_vectors(3, seed=2))
    question = dataclasses.replace(ASK, collapse=collapse)
    honest = _ask(finder, queries[1], collapse=collapse).next_cursor
    head = base64.urlsafe_b64decode(honest + "=" * (-len(honest) % 4))[:8]
    forged = base64.urlsafe_b64encode(head + body).rstrip(b"=").decode()
    asked = [question, dataclasses.replace(question, cursor=forged), question]
    together = finder.find(queries, asked)
    assert isinstance(together[1], MalformedRequest)
    assert (together[1].code, together[1].status) == ("malformed_request", 400)
    assert [together[0], together[2]] == [
        finder.find([queries[number]], [question])[0] for number in (0, 2)
    ]


def test_only_the_text_that_an_answer_gave_is_a_cursor(tmp_path: Path) -> None:
    """Other spellings of the same bytes are refused; padding at the end is ignored."""
    finder, query = _finder(tmp_path, unit_vectors(COUNT)), unit_vectors(1, seed=2)[0]
    cursor = _ask(finder, query, k=11).next_cursor
    page = _ask(finder, query, cursor=cursor)
    assert _ask(finder, query, cursor=cursor + "=" * (-len(cursor) % 4)) == page
    for other in (f"{cursor[:5]}\n{cursor[5:]}", f"{cursor}!", f"{cursor}é", "A" * 9000):
        with pytest.raises(MalformedRequest):
            _ask(finder, query, cursor=other)


@given(st.sets(st.integers(0, COUNT - 1), max_size=MAX_SHOWN))
def test_a_cursor_names_exactly_the_items_shown(shown: set[int]) -> None:
    """Decoding gives the encoded positions in ascending order."""
    cursor = paging.encode("version", ASK, shown)
    assert paging.decode(cursor, "version", ASK, COUNT).tolist() == sorted(shown)


@given(st.binary(max_size=64))
def test_any_body_of_a_cursor_is_refused_or_names_items(body: bytes) -> None:
    """After a valid head, any body gives ascending positions of items, or MalformedRequest."""
    head = base64.urlsafe_b64decode(paging.encode("version", ASK, []) + "==")[:8]
    cursor = base64.urlsafe_b64encode(head + body).rstrip(b"=").decode()
    try:
        shown = paging.decode(cursor, "version", ASK, COUNT).tolist()
    except MalformedRequest:
        return
    assert shown == sorted(set(shown))
    assert all(0 <= one < COUNT for one in shown)


def _breaks(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, meets: Callable[[Any], bool]
) -> None:
    """Let a method raise IndexError when one of its arguments is the marked one."""
    sound = getattr(owner, name)

    def broken(*arguments: Any) -> Any:
        if any(map(meets, arguments)):
            raise IndexError(name)
        return sound(*arguments)

    monkeypatch.setattr(owner, name, broken)


@pytest.mark.parametrize("broken", ["distance", "encode", "by_id", "at", "search"])
def test_a_defect_in_one_answer_fails_that_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """A defect at any place affects one query; the others get the answers to their vectors."""
    vectors = unit_vectors(COUNT)
    finder, queries = _finder(tmp_path, vectors, "exact"), [*vectors[[10, 20, 30]]]
    plain = [dataclasses.replace(ASK, k=1) for _ in queries]
    marked = dataclasses.replace(ASK, k=1, exclude="gone" if broken == "by_id" else "")
    if broken == "distance":
        marked = dataclasses.replace(marked, max_distance=cast("float", object()))
    questions = [plain[0], marked, plain[2]]
    if broken == "at":
        _breaks(monkeypatch, finder.index.items, "at", lambda one: 20 in one)
    elif broken == "search":
        _breaks(
            monkeypatch, finder.index.engine, "search",
            lambda one: isinstance(one, np.ndarray) and queries[1] in one,
        )  # fmt: skip
    elif broken == "by_id":
        _breaks(monkeypatch, finder.index.items, "by_id", lambda one: one == "gone")
    elif broken == "encode":
        _breaks(monkeypatch, paging, "encode", lambda one: one is marked)
    first, failed, last = finder.find(queries, questions)
    assert isinstance(failed, Internal)
    assert isinstance(failed.__cause__, TypeError if broken == "distance" else IndexError)
    assert isinstance(first, Neighbors)
    assert isinstance(last, Neighbors)
    assert (_ids(first.neighbors), _ids(last.neighbors)) == (["id10"], ["id30"])


def test_no_neighbours_asked_for_is_refused_alone(tmp_path: Path) -> None:
    """K of 0 gets `malformed_request`, and its batch is answered."""
    vectors = unit_vectors(COUNT)
    finder = _finder(tmp_path, vectors)
    none, ten = finder.find([vectors[0], vectors[1]], [dataclasses.replace(ASK, k=0), ASK])
    assert isinstance(none, MalformedRequest)
    assert isinstance(ten, Neighbors)
    assert _ids(ten.neighbors)[0] == "id1"


@pytest.mark.parametrize("method", METHODS)
def test_max_distance_leaves_out_what_is_farther(tmp_path: Path, method: MethodName) -> None:
    """The limit is an angular distance, holds on every page, and may leave no item."""
    finder, query = _finder(tmp_path, unit_vectors(COUNT), method), unit_vectors(1, seed=5)[0]
    whole = _ask(finder, query, k=20).neighbors
    bound = whole[14].distance
    near = _ask(finder, query, k=10, max_distance=bound)
    rest = _ask(finder, query, k=10, max_distance=bound, cursor=near.next_cursor)
    assert _ids((*near.neighbors, *rest.neighbors)) == _ids(whole[:15])
    assert not rest.next_cursor
    assert _ask(finder, query, max_distance=0.0).neighbors == ()


def _with_copies(count: int, copies: int) -> Vectors:
    """Return each of `count` vectors followed by slightly moved copies."""
    rng = np.random.default_rng(7)
    whole = np.repeat(unit_vectors(count), copies + 1, axis=0)
    whole += 0.001 * rng.normal(size=whole.shape).astype("f4")
    unit: Vectors = (whole / np.linalg.norm(whole, axis=1, keepdims=True)).astype("<f4")
    return unit


@pytest.mark.parametrize("method", METHODS)
def test_near_duplicates_are_folded_into_the_nearest(tmp_path: Path, method: MethodName) -> None:
    """Of four copies one is shown and names the others; k different pictures are found."""
    finder = _finder(tmp_path, _with_copies(60, 3), method)
    answer = _ask(finder, unit_vectors(1, seed=2)[0], k=12, collapse=0.05)
    assert len(answer.neighbors) == 12
    for neighbor in answer.neighbors:
        family = {int(one[2:]) // 4 for one in (neighbor.item_id, *neighbor.duplicates)}
        assert len(family) == 1
        assert len(neighbor.duplicates) == 3
    assert len({int(one.item_id[2:]) // 4 for one in answer.neighbors}) == 12


def test_folding_continues_from_page_to_page(tmp_path: Path) -> None:
    """Each family of copies is shown once, on any number of pages."""
    finder, query = _finder(tmp_path, _with_copies(60, 3)), unit_vectors(1, seed=2)[0]
    families, cursor = list[int](), ""
    while True:
        answer = _ask(finder, query, k=7, collapse=0.05, cursor=cursor)
        families += [int(one.item_id[2:]) // 4 for one in answer.neighbors]
        cursor = answer.next_cursor
        if not cursor:
            break
    assert sorted(families) == list(range(60))


def test_a_collection_of_one_picture_folds_into_one(tmp_path: Path) -> None:
    """When all items are copies, a single item with its duplicates is the whole answer."""
    finder = _finder(tmp_path, _with_copies(1, 299))
    answer = _ask(finder, unit_vectors(1)[0], k=10, collapse=0.2)
    assert len(answer.neighbors) == 1
    assert len(answer.neighbors[0].duplicates) == 100
    assert not answer.next_cursor


@pytest.mark.parametrize("wanted", [None, Filter((), {"half": ("1",)})], ids=["all", "filtered"])
@pytest.mark.parametrize("method", METHODS)
def test_a_thousand_copies_of_each_picture_fold_into_it(
    tmp_path: Path, method: MethodName, wanted: Filter | None
) -> None:
    """Twenty pictures with 1,000 copies each are twenty results, at any page size."""
    vectors, query = _with_copies(20, 999), unit_vectors(1, seed=2)[0]
    finder = _finder(tmp_path, vectors, method)
    whole = _ask(finder, query, k=20, collapse=0.05, filter=wanted)
    assert {int(one.item_id[2:]) // 1000 for one in whole.neighbors} == set(range(20))
    assert not _ask(finder, query, k=25, collapse=0.05, filter=wanted).next_cursor
    paged, cursor = list[str](), ""
    while True:
        page = _ask(finder, query, k=7, collapse=0.05, filter=wanted, cursor=cursor)
        paged += _ids(page.neighbors)
        assert all(len(one.duplicates) == 100 for one in page.neighbors[:1])
        cursor = page.next_cursor
        if not cursor:
            break
    assert paged == _ids(whole.neighbors)


def test_folding_ends_at_its_bound() -> None:
    """A page with items has a next page; a page without items ends the paging."""
    vectors = _with_copies(2, 4999)
    cosines = vectors @ vectors[0]
    order = np.argsort(-cosines, kind="stable")
    found = order, np.sqrt(np.maximum(0, 2 - 2 * cosines[order])).astype("f4")
    question = dataclasses.replace(ASK, k=2, collapse=0.05)
    none = np.empty(0, np.int64)
    whole = fold(vectors, found, question, before=none)
    assert (len(whole.positions), whole.more) == (2, True)
    cut = fold(vectors, found, question, before=none, max_cost=2048 * 65)
    assert (cut.positions, cut.more) == (whole.positions[:1], True)
    last = fold(vectors, found, question, before=np.array(cut.positions), max_cost=2048 * 65)
    assert (last.positions, last.more) == ([], False)


def test_a_cursor_names_the_items_shown_not_their_copies(tmp_path: Path) -> None:
    """A thousand results can be paged through, however many copies each has."""
    finder = _finder(tmp_path, _with_copies(20, 200), "exact")
    page = _ask(finder, unit_vectors(1, seed=2)[0], k=10, collapse=0.05)
    assert len(page.next_cursor) < 60


def test_the_item_of_the_query_is_left_out(tmp_path: Path) -> None:
    """The item is not in the answer, but its copies are, also when duplicates are folded."""
    vectors = _with_copies(60, 3)
    finder = _finder(tmp_path, vectors)
    plain = _ask(finder, vectors[8], exclude="id8")
    assert sorted(_ids(plain.neighbors)[:3]) == ["id10", "id11", "id9"]
    assert len(plain.neighbors) == 10
    folded = _ask(finder, vectors[8], exclude="id8", collapse=0.05)
    assert int(folded.neighbors[0].item_id[2:]) // 4 == 2
    assert "id8" not in folded.neighbors[0].duplicates
    assert _ids(_ask(finder, vectors[8], exclude="gone").neighbors)[0] == "id8"


def test_questions_of_a_batch_are_independent(tmp_path: Path) -> None:
    """Different k, filters and failures give the same answers as alone."""
    finder, queries = _finder(tmp_path, unit_vectors(COUNT)), unit_vectors(5, seed=2)
    queries[3] = np.nan
    questions = [
        ASK,
        dataclasses.replace(ASK, k=100),
        dataclasses.replace(ASK, filter=Filter(("kind 1",))),
        ASK,
        dataclasses.replace(ASK, cursor="rubbish!"),
    ]
    together = finder.find(list(queries), questions)
    for query, question, answer in zip(queries[:3], questions[:3], together[:3], strict=True):
        assert finder.find([query], [question]) == [answer]
    codes = [one.code for one in together[3:] if isinstance(one, SimileError)]
    assert codes == ["invalid_vector", "malformed_request"]


@pytest.mark.parametrize("method", METHODS)
def test_a_hundred_neighbours_are_found_as_well_as_ten(tmp_path: Path, method: MethodName) -> None:
    """A large k searches more candidates, so that the recall stays."""
    vectors, queries = unit_vectors(1500), unit_vectors(10, seed=2)
    finder, hits = _finder(tmp_path, vectors, method), 0
    for query in queries:
        expected = {f"id{one}" for one in _sorted_by_distance(vectors, query)[:100]}
        hits += len(expected & set(_ids(_ask(finder, query, k=100).neighbors)))
    assert hits / 1000 >= 0.97

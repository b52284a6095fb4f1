"""The parameters of a query are parsed, or refused by name."""

from __future__ import annotations

import json

import pytest

from services.shared.contracts import Box, Filter, Question
from services.shared.contracts.parameters import Route
from services.shared.errors import MalformedRequest
from services.upload.query.parameters import parse_search


def _parse(**fields: str) -> tuple[Question, Box | None]:
    return parse_search(fields, Route.SEARCH)


def test_defaults_and_given_values() -> None:
    """Without parameters, the query is for ten neighbours; given values replace the defaults."""
    assert _parse() == (Question(), None)
    asked = _parse(
        collection="birds",
        k="100",
        max_distance="0.5",
        collapse="2",
        filter='{"label": ["cat", "dog", "cat"], "attributes": {"author": "Ann"}}',
        box="0.25,0,0.5,1",
        cursor="abc-_9==",
    )
    wanted = Filter(("cat", "dog"), {"author": ("Ann",)})
    assert asked == (
        Question(
            collection="birds", k=100, max_distance=0.5, collapse=2.0, filter=wanted,
            cursor="abc-_9==",
        ),
        Box(0.25, 0, 0.5, 1),
    )  # fmt: skip


@pytest.mark.parametrize("k", ["0", "101", "-1", "1.5", "ten", "", "1e1", "²", "9" * 40, "NaN"])
def test_k_must_be_a_whole_number_in_range(k: str) -> None:
    """Any other value is refused with the parameter's name and range."""
    with pytest.raises(MalformedRequest, match="k must be a whole number from 1 to 100"):
        _parse(k=k)


@pytest.mark.parametrize("name", ["max_distance", "collapse"])
@pytest.mark.parametrize(
    "distance", ["-0.1", "2.1", "nan", "inf", "-inf", "near", "", "0_1", "\u0661", "1,5", "0x1"]
)
def test_a_distance_must_be_a_number_in_range(name: str, distance: str) -> None:
    """NaN and infinity are refused, as are numbers in a notation of Python's."""
    with pytest.raises(MalformedRequest, match=f"{name} must be a number from 0 to 2"):
        parse_search({name: distance}, Route.SEARCH)


def test_a_box_may_end_a_rounding_error_after_the_image() -> None:
    """Fractions that were computed need not add up to the last bit."""
    assert _parse(box="0.7, 0.1, 0.3000001, 0.9")[1] == Box(0.7, 0.1, 0.3000001, 0.9)


@pytest.mark.parametrize(
    "box",
    [
        "", "0,0,1", "0,0,1,1,1", "0,0,0,1", "0,0,1,0", "-0.1,0,0.5,0.5", "0,-0.1,0.5,0.5",
        "0.6,0,0.5,1", "0,0.6,1,0.5", "0,0,1.001,1", "nan,0,1,1", "0,0,inf,1", "0,0,1,nan",
        "a,b,c,d", "0 0 1 1", "0,0,1e400,1", "0,0,1,-1",
    ],
)  # fmt: skip
def test_a_box_must_be_inside_the_image(box: str) -> None:
    """A box has four finite fractions, a size above zero, and no part outside of the image."""
    with pytest.raises(MalformedRequest, match="box must be left,top,width,height"):
        _parse(box=box)


@pytest.mark.parametrize("cursor", ["", "a b", "a+b", "a/b", "a=b", "===", "é", "a" * 8193, "a\n"])
def test_a_cursor_is_url_safe_text(cursor: str) -> None:
    """A text that no answer can have given is refused before a message is sent."""
    with pytest.raises(MalformedRequest, match="cursor must be the next_cursor of an answer"):
        _parse(cursor=cursor)


def test_the_longest_cursor_passes() -> None:
    """A cursor of 8192 characters is accepted unchanged."""
    assert _parse(cursor="a" * 8192)[0].cursor == "a" * 8192


@pytest.mark.parametrize("text", ["{}", '{"attributes": {}}'])
def test_an_empty_filter_is_no_filter(text: str) -> None:
    """An empty object excludes no item."""
    assert _parse(filter=text)[0].filter is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is not a JSON object"),
        ("cat", "is not a JSON object"),
        ("[]", "is not a JSON object"),
        ("NaN", "is not a JSON object"),
        ("[" * 4000, "is not a JSON object"),
        ('{"label": "cat"', "is not a JSON object"),
        ('{"labels": "cat"}', "has an unknown member 'labels'"),
        ('{"label": []}', "has no text or list of texts as label"),
        ('{"label": 3}', "has no text or list of texts as label"),
        ('{"label": null}', "has no text or list of texts as label"),
        ('{"label": ["cat", 3]}', "has no text as label"),
        ('{"label": [["cat"]]}', "has no text as label"),
        ('{"label": "\\ud800"}', "has a broken label"),
        ('{"label": "cat", "label": "dog"}', "has a member twice"),
        ('{"attributes": []}', "has attributes that are not a JSON object"),
        ('{"attributes": {"author": []}}', "has no text or list of texts as attribute 'author'"),
        ('{"attributes": {"author": {}}}', "has no text or list of texts as attribute 'author'"),
        ('{"attributes": {"\\udc00": "Ann"}}', "has a broken attribute name"),
        ('{"attributes": {"a": "1", "a": "2"}}', "has a member twice"),
        (json.dumps({"label": [str(n) for n in range(101)]}), "has more than 100 values"),
        (
            json.dumps({"label": [str(n) for n in range(50)],
                        "attributes": {str(n): str(n) for n in range(51)}}),
            "has more than 100 values",
        ),
        (json.dumps({"label": "x" * 4090}), "has more than 4096 bytes"),
        (json.dumps({"label": "é" * 2045}, ensure_ascii=False), "has more than 4096 bytes"),
    ],
)  # fmt: skip
def test_a_wrong_filter_says_what_is_wrong(text: str, fault: str) -> None:
    """Each mistake is named, with an example of a filter."""
    with pytest.raises(MalformedRequest) as refusal:
        _parse(filter=text)
    assert str(refusal.value).startswith(f"filter {fault}")
    assert "it looks like" in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "route"),
    [
        ("max_distnace", Route.SEARCH),
        ("cursor", Route.BATCH),
        ("box", Route.SIMILAR),
        ("collection", Route.SIMILAR),
    ],
)
def test_an_unknown_parameter_is_named(name: str, route: Route) -> None:
    """A misspelt parameter, or one that has no meaning on the route, is an error."""
    with pytest.raises(
        MalformedRequest, match=f"'{name}';.* this address takes: .*k, max_distance"
    ):
        parse_search({name: "1"}, route)

"""The parameters of a query: what is accepted, and what is refused by name."""

from __future__ import annotations

import pytest

from services.shared.errors import MalformedRequest
from services.upload.query import Question, parse_question


def test_defaults_and_given_values() -> None:
    """Without parameters ten neighbours of the default collection; else what is asked."""
    assert parse_question({}) == Question(None, 10, None)
    fields = {"collection": "birds", "k": "100", "max_distance": "0.5"}
    assert parse_question(fields) == Question("birds", 100, 0.5)


@pytest.mark.parametrize("k", ["0", "101", "-1", "1.5", "ten", "", "1e1", "²", "9" * 40, "NaN"])
def test_k_must_be_a_whole_number_in_range(k: str) -> None:
    """Anything else names the parameter and its range."""
    with pytest.raises(MalformedRequest, match="k must be a whole number from 1 to 100"):
        parse_question({"k": k})


@pytest.mark.parametrize("distance", ["-0.1", "2.1", "nan", "inf", "-inf", "near", ""])
def test_max_distance_must_be_a_number_in_range(distance: str) -> None:
    """NaN and infinity are no distances."""
    with pytest.raises(MalformedRequest, match="max_distance must be a number from 0 to 2"):
        parse_question({"max_distance": distance})


def test_an_unknown_parameter_is_named() -> None:
    """A misspelt parameter is an error, not silence."""
    with pytest.raises(MalformedRequest, match="'max_distnace'; this address takes: collection, k"):
        parse_question({"max_distnace": "1"})

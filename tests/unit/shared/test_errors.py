"""The error tree has unique codes of one form, and fitting statuses."""

from __future__ import annotations

import re

import pytest

from services.shared import errors
from services.shared.errors import SimileError


def _classes(root: type[SimileError]) -> list[type[SimileError]]:
    return [root, *(found for child in root.__subclasses__() for found in _classes(child))]


def test_every_error_has_its_own_code() -> None:
    """No two errors share a code, except Internal, which is an alias of the base."""
    codes = [kind.code for kind in _classes(SimileError) if kind is not errors.Internal]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


@pytest.mark.parametrize("kind", _classes(SimileError), ids=lambda kind: kind.__name__)
def test_every_503_says_when_to_try_again(kind: type[SimileError]) -> None:
    """Retry-After exists for 429, 503 and 504 only."""
    assert (kind.retry_after_seconds is not None) == (kind.status in {429, 503, 504})


def test_a_code_comes_back_as_its_error() -> None:
    """The code of a Failure message gives its error; an unknown code gives Internal."""
    assert isinstance(errors.from_code("no_index", "why"), errors.NoIndex)
    assert isinstance(errors.from_code("of_a_newer_peer", "why"), errors.Internal)

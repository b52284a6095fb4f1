"""An exact scan gives the same for a query alone and for a query in a batch."""

from __future__ import annotations

from typing import Final

import numpy as np
import pytest

from services.searcher.index import scan

_ROWS: Final = 2 * 16_384 + 100
"""Two blocks, and a third that is shorter than the requested number of rows."""


@pytest.mark.parametrize("rows", [5, 200, _ROWS])
@pytest.mark.parametrize("left_out", [False, True])
def test_a_query_alone_finds_the_same_as_in_a_batch(rows: int, *, left_out: bool) -> None:
    """Both equal the result of sorting all products."""
    random = np.random.default_rng(7)
    matrix = random.standard_normal((rows, 8)).astype(np.float32)
    queries = random.standard_normal((3, 8)).astype(np.float32)
    without = np.arange(0, rows, 2) if left_out else np.empty(0, np.int64)
    together = scan.nearest(matrix, queries, 120, without=without)
    for query, (positions, dots) in zip(queries, together, strict=True):
        products = matrix @ query
        products[without] = -np.inf
        k = min(120, rows - len(without))
        ((alone, alone_dots),) = scan.nearest(matrix, query[None], 120, without=without)
        assert alone.tolist() == positions.tolist() == np.argsort(-products)[:k].tolist()
        np.testing.assert_allclose(alone_dots, dots, rtol=1e-5)

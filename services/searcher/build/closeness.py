"""Derives the similarity below which a collection has nothing close, from its own distances."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.searcher.build.trial import Trial

MIN_SAMPLES: Final = 20
"""Items whose nearest neighbour is known; a percentile of fewer would be chance."""

_PERCENTILE: Final = 5
"""The percentage of items that have no close neighbour themselves."""

_MAX_SHARE: Final = 2 / 3
"""Of the way from the similarity of random pairs to that of nearest neighbours. Where items have
near-duplicates, the percentile would call all other similar images distant."""


def close_above(trial: Trial) -> float | None:
    """Return a cosine similarity that 95 % of the items reach with their nearest neighbour.

    At most two thirds of the way from the median similarity of random pairs to that of nearest
    neighbours. Uses the exact neighbours that the trial has found, and random pairs of its sample;
    no other vectors are read.

    Returns:
        The similarity, -1..1; None if the sample is too small.
    """
    nearest = trial.nearest_similarities
    if len(nearest) < MIN_SAMPLES:
        return None
    apart = float(np.median(_random_pairs(trial)))
    typical = float(np.median(nearest))
    # Products of equal unit vectors are rounded to slightly more than 1.
    return min(
        1.0, float(np.percentile(nearest, _PERCENTILE)), apart + _MAX_SHARE * (typical - apart)
    )


def _random_pairs(trial: Trial) -> NDArray[np.float32]:
    """Return the similarities of each held-out vector to a random other one."""
    # Drawn with an offset, so that none meets itself.
    count = len(trial.queries)
    offsets = np.random.default_rng(0).integers(1, count, count)
    others = (np.arange(count) + offsets) % count
    pairs: NDArray[np.float32] = np.einsum("ij,ij->i", trial.queries, trial.queries[others])
    return pairs

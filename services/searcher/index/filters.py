"""Finds the positions that pass a filter, and caches the latest filters."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

import numpy as np

from services.searcher.index.scan import Positions
from services.shared.contracts import Filter
from services.shared.volume.items import ItemCatalog

_KEPT: Final = 16


class Filters:
    """The filters of a version; thread-safe."""

    def __init__(self, items: ItemCatalog) -> None:
        self._items = items
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Positions] = OrderedDict()

    def positions(self, wanted: Filter) -> Positions:
        """Return the positions that pass, ascending."""
        key = repr((sorted(wanted.labels), sorted(wanted.attributes.items())))
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        passing = np.frombuffer(self._items.matching(wanted), np.int64)
        with self._lock:
            self._known[key] = passing
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return passing

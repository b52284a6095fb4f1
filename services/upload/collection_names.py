"""Finds the names of the collections that are served, and the default one among them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from services.shared.errors import CollectionRequired, IndexBuilding, NoIndex, UnknownCollection
from services.shared.volume.build_progress import BuildProgress, BuildWatch
from services.shared.volume.volume import Volume

_MAX_RETRY_SECONDS: Final = 30


class CollectionNames:
    """Reads the volume's collections and builds; leaves out those that are hidden."""

    def __init__(self, volume: Volume, default: str | None, hidden: frozenset[str]) -> None:
        self._volume = volume
        self._watch = BuildWatch(volume)
        self._hidden = hidden
        self.wanted = default

    def indexed(self) -> list[str]:
        """Return those that have an active version, sorted."""
        return [name for name in self._volume.collections() if name not in self._hidden]

    def builds(self) -> Mapping[str, BuildProgress]:
        """Return the builds that run now, by collection."""
        running = self._watch.running().items()
        return {name: build for name, build in running if name not in self._hidden}

    def build_of(self, name: str) -> BuildProgress | None:
        """Return the build of that collection that runs now."""
        return None if name in self._hidden else self._watch.of(name)

    def require_served(self, name: str) -> None:
        """Raise UnknownCollection for a hidden one, as for one that does not exist."""
        if name in self._hidden:
            message = f"there is no collection {name!r}; GET /v1/collections lists them"
            raise UnknownCollection(message)

    def default(self) -> str:
        """Return the collection of a query that names none.

        Raises CollectionRequired, NoIndex.
        """
        names, wanted = self.indexed(), self.wanted
        if wanted is not None and (wanted in names or self.build_of(wanted) is not None):
            return wanted
        if len(names) == 1:
            return names[0]
        if wanted is not None:
            return wanted
        building = [] if names else sorted(self.builds())
        if len(building) == 1:
            return building[0]
        if not names:
            message = "there is no collection yet: `simile index build FOLDER` makes one"
            raise NoIndex(message)
        message = f"there are several collections; say which, as ?collection=: {', '.join(names)}"
        raise CollectionRequired(message)

    def explained(self, name: str, error: NoIndex) -> NoIndex:
        """Return the error, or a better one where the first index is being built."""
        build = self.build_of(name)
        if build is None:
            return error
        better = IndexBuilding(
            f"the first index of {name!r} is being built ({build}); GET /v1/collections says how "
            "far it is: try again when it is there"
        )
        if build.eta_seconds is not None:
            wait = max(1, math.ceil(build.eta_seconds))
            better.retry_after_seconds = min(_MAX_RETRY_SECONDS, wait)
        return better

"""Carries the progress of index builds by the volume, from the builder to everybody else.

<root>/<collection>/building/progress.json  replaced at least once a second while a build runs
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from services.shared.json_text import read_json
from services.shared.volume.volume import Volume

BUILDING: Final = "building"
PROGRESS: Final = "progress.json"

_STAGES_OF_IMAGES: Final = {"drawing": "drawing ", "reading": "reading ", "embedding": ""}
_STALE_SECONDS: Final = 15.0
"""After how long without an update a build counts as dead."""


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """Holds the progress of a build.

    Attributes:
        stage: the current stage, as in the metric simile_index_build_stage.
        done: images that are through the stage, or through the last one that counted images.
        total: images of that stage; None before they are counted.
        failed: images that could not be used so far, and are left out.
        eta_seconds: the estimated remaining time; None where there is no estimate.
        build: a name of this build alone.
        beat: how often this build has written; it grows for as long as the build lives.
        written_unix_ms: when it was written, by the builder's clock.
    """

    stage: str
    done: int
    total: int | None
    failed: int
    eta_seconds: float | None
    build: str
    beat: int
    written_unix_ms: int

    def write(self, building: Path) -> None:
        """Replace the file in a collection's `building`, atomically."""
        building.mkdir(parents=True, exist_ok=True)
        incoming = building / f"{PROGRESS}.new"
        incoming.write_text(json.dumps(asdict(self)))
        incoming.replace(building / PROGRESS)

    def __str__(self) -> str:
        """Return it in words: `812 of 4,210 images, about 20 s`."""
        if self.total is None or self.stage not in _STAGES_OF_IMAGES:
            return self.stage
        verb = _STAGES_OF_IMAGES[self.stage]
        parts = [f"{verb}{self.done:,} of {self.total:,} images"]
        if self.eta_seconds is not None:
            parts.append(f"about {self.eta_seconds:.0f} s")
        return ", ".join(parts)


class BuildWatch:
    """Finds the builds that run now, in whatever process and on whatever machine."""

    def __init__(self, volume: Volume, clock: Callable[[], float] = time.monotonic) -> None:
        self._volume = volume
        self._clock = clock
        self._seen: dict[str, tuple[tuple[str, int], float | None]] = {}

    def running(self) -> Mapping[str, BuildProgress]:
        """Return the builds that run, by collection; none while the volume can't be read."""
        try:
            homes = self._volume.homes()
        except OSError:
            return {}
        found = {name: self.of(name) for name in homes}
        return {name: progress for name, progress in found.items() if progress is not None}

    def of(self, collection: str) -> BuildProgress | None:
        """Return the build of that collection; None when there is none, or it died."""
        progress = _read(self._volume.home(collection) / BUILDING / PROGRESS)
        if progress is None:
            self._seen.pop(collection, None)
            return None
        return progress if self._lives(collection, progress) else None

    def _lives(self, collection: str, progress: BuildProgress) -> bool:
        """Judge by beats and this process's own clock: the builder's may be wrong."""
        mark, now = (progress.build, progress.beat), self._clock()
        seen = self._seen.get(collection)
        if seen is None:
            age = abs(time.time() - progress.written_unix_ms / 1000)
            seen = self._seen[collection] = (mark, now if age < _STALE_SECONDS else None)
        elif seen[0] != mark:
            seen = self._seen[collection] = (mark, now)
        since = seen[1]
        return since is not None and now - since < _STALE_SECONDS


def _read(path: Path) -> BuildProgress | None:
    """Read the file; None where it is missing, or written by a version that has other fields."""
    try:
        fields = read_json(path.read_text())
        return BuildProgress(**{name: fields[name] for name in BuildProgress.__slots__})
    except (OSError, ValueError, LookupError, TypeError):
        return None

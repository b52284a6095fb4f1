"""Reads and writes `manifest.json`, which describes an index version and how it is searched."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal, get_args

from services.shared.errors import IndexCorrupt
from services.shared.json_text import read_json
from services.shared.volume.items import ITEMS

FORMAT: Final = 2
MANIFEST: Final = "manifest.json"
VECTORS: Final = "vectors.f32"
REDUCTION: Final = "reduction.npz"
REDUCED: Final = "reduced.f32"
LISTED: Final = "lists.f32"
LISTS: Final = "lists.npz"

MethodName = Literal["annoy", "reduced-annoy", "reduced-hnsw", "reduced-ivf", "reduced", "exact"]
"""The methods of services/searcher/index/methods, in the registry's order. Those that begin with
"reduced" search vectors of fewer dimensions, and re-rank the best by the full vectors."""

_FILE_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\.[a-z0-9]+")
_FLOAT32_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class StoredFile:
    """Holds the size and the hash of a file of a version."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Shard:
    """Describes an Annoy file, which holds `count` positions from `first` on."""

    file: str
    first: int
    count: int


Shards = tuple[Shard, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Describes how an index version is searched; a method's unused parameters are 0.

    Attributes:
        method: the name of the search method.
        dimension: of the vectors that are searched.
        trees: of each Annoy file.
        search_k: Annoy nodes inspected, or candidates kept in a graph, for 10 neighbours in each
            shard.
        lists: the number of inverted lists.
        probes: the number of lists searched for 10 neighbours.
        rerank: candidates whose exact distance decides the best 10.
    """

    method: MethodName
    dimension: int
    trees: int = 0
    search_k: int = 0
    lists: int = 0
    probes: int = 0
    rerank: int = 0

    @property
    def reduces(self) -> bool:
        """True for a method that searches reduced vectors."""
        return reduces(self.method)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Holds the recall and the speed of a plan, as measured by the build.

    Attributes:
        plan: the plan.
        recall: recall@10 of held-out vectors against exact search.
        recall_low: the lower end of its 95 % confidence interval.
        queries_per_second: with one thread and 32 queries at a time.
        milliseconds: of one query alone.
        bytes: of the files that are searched.
    """

    plan: Plan
    recall: float
    recall_low: float
    queries_per_second: float
    milliseconds: float
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Describes an index version.

    Attributes:
        plan: the fastest plan that reached `recall_target`.
        recall: the measured recall of `plan`.
        energy: the share of the vectors' variance that the reduction keeps; 1 without one.
        measured: every plan that was tried.
        canaries: positions whose vectors must find themselves.
        images_root: the folder of the images, as the builder saw it.
        close_above: the similarity below which nothing is close; None where it is unknown, as in
            indexes of earlier releases.
        linked_folders: the folders outside it that links in it led to, and that may be served.
    """

    collection: str
    version: str
    model_id: str
    dimension: int
    count: int
    plan: Plan
    recall: float
    recall_target: float
    energy: float
    measured: tuple[Measurement, ...]
    shards: Shards
    images_root: str
    created_unix_ms: int
    canaries: tuple[int, ...]
    files: Mapping[str, StoredFile]
    linked_folders: tuple[str, ...] = ()
    close_above: float | None = None
    format: int = FORMAT
    metric: str = "angular"

    def to_json(self) -> str:
        """Return the manifest's text."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @property
    def bytes(self) -> int:
        """The size of all its files: what a reader maps at most."""
        return sum(file.bytes for file in self.files.values())

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Parse a manifest. Raises IndexCorrupt for text of another format."""
        try:
            raw: dict[str, Any] = read_json(text)
            if raw["format"] != FORMAT:
                message = (
                    f"the index has format {raw['format']}, this Simile reads {FORMAT}: "
                    "build it again"
                )
                raise IndexCorrupt(message)
            raw["canaries"] = tuple(int(position) for position in raw["canaries"])
            raw["files"] = {name: StoredFile(**file) for name, file in raw["files"].items()}
            _require_known(raw["plan"]["method"])
            raw["plan"] = Plan(**raw["plan"])
            raw["measured"] = tuple(
                Measurement(**{**one, "plan": Plan(**one["plan"])}) for one in raw["measured"]
            )
            # Manifests of earlier releases have none.
            raw["close_above"] = _similarity(raw.get("close_above"))
            raw["linked_folders"] = tuple(str(one) for one in raw.get("linked_folders", ()))
            raw["shards"] = tuple(Shard(**shard) for shard in raw["shards"])
            manifest = cls(**{field.name: raw[field.name] for field in fields(cls)})
            _check(manifest)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            message = f"{MANIFEST} is not a manifest: {error!r}"
            raise IndexCorrupt(message) from error
        return manifest


def reduces(method: str) -> bool:
    """Return whether a method searches reduced vectors."""
    return method.startswith("reduced")


def _similarity(given: Any) -> float | None:  # noqa: ANN401 (any JSON)
    """Return a similarity, or None where there is none. Raises IndexCorrupt."""
    if given is None:
        return None
    sound = isinstance(given, int | float) and not isinstance(given, bool) and -1 <= given <= 1
    require(sound, "has a close_above that is no similarity")
    return float(given)


def require(condition: bool, fault: str) -> None:  # noqa: FBT001 (an assertion's condition)
    """Raise IndexCorrupt, with the manifest's fault, unless the condition holds."""
    if not condition:
        message = f"{MANIFEST} {fault}"
        raise IndexCorrupt(message)


def require_rows(manifest: Manifest, name: str, dimension: int) -> None:
    """Raise IndexCorrupt unless that file has the size of a matrix (count, dimension)."""
    expected = _FLOAT32_BYTES * manifest.count * dimension
    require(manifest.files[name].bytes == expected, f"has a {name} that isn't count x dimension")


def require_no_shards(manifest: Manifest) -> None:
    """Raise IndexCorrupt for shards, which not all methods search."""
    method = manifest.plan.method
    require(not manifest.shards, f"has shards, which {method} does not search")


def _require_known(method: object) -> None:
    """Refuse what a newer Simile has built, before the rest of the plan is read."""
    if method not in get_args(MethodName):
        message = (
            f"{MANIFEST} names a search method {str(method)[:40]!r}, which this Simile does not "
            "know: run the version that built the index, or build it again"
        )
        raise IndexCorrupt(message)


def _check(manifest: Manifest) -> None:
    """Raise IndexCorrupt for what no method could search, or would be read from elsewhere."""
    plan = manifest.plan
    _check_types(manifest, *manifest.measured, plan, *manifest.shards, *manifest.files.values())
    inside = all(0 <= position < manifest.count for position in manifest.canaries)
    require(inside, "has a canary that is no item")
    for size in (manifest.count, manifest.dimension, plan.dimension):
        require(isinstance(size, int) and size > 0, "has a count or dimension that isn't positive")
    require(plan.dimension <= manifest.dimension, "searches more dimensions than there are")
    require(manifest.metric == "angular", f"has metric {manifest.metric!r}, not 'angular'")
    if manifest.shards:
        require(_covers(manifest.shards, manifest.count), "has shards that don't hold all items")
    for name in manifest.files:
        require(bool(_FILE_NAME.fullmatch(name)), f"names a file {name[:40]!r}")
    needed = {VECTORS, ITEMS, *(shard.file for shard in manifest.shards)}
    missing = needed - set(manifest.files)
    require(not missing, f"lacks {sorted(missing)}")
    require_rows(manifest, VECTORS, manifest.dimension)


def _check_types(*parts: object) -> None:
    """Check every plain value: a text where a number is shown would break each list of versions."""
    kinds: Mapping[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (int, float)}
    for part in parts:
        for field in fields(part):  # type: ignore[arg-type]  # all are dataclasses
            kind, value = kinds.get(str(field.type)), getattr(part, field.name)
            sound = kind is None or (isinstance(value, kind) and not isinstance(value, bool))
            require(sound, f"has a {field.name} of {str(value)[:40]!r}")


def _covers(shards: Shards, count: int) -> bool:
    end = 0
    for shard in shards:
        if shard.first != end or shard.count <= 0:
            return False
        end += shard.count
    return end == count

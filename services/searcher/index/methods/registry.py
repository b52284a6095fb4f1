"""Lists the search methods by name, Annoy first; `simile index build` tries them from the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from services.searcher.index.methods.annoy import Annoy
from services.searcher.index.methods.exact import Exact
from services.searcher.index.methods.hnsw import Hnsw
from services.searcher.index.methods.ivf import InvertedListsMethod
from services.searcher.index.methods.method import Method
from services.searcher.index.methods.reduced import Reduced
from services.shared.volume.items import ITEMS
from services.shared.volume.manifest import (
    REDUCTION,
    VECTORS,
    Manifest,
    MethodName,
    Plan,
    Shard,
    require,
)

_ALL: Final[tuple[Method, ...]] = (
    Annoy("annoy"), Annoy("reduced-annoy"), Hnsw(), InvertedListsMethod(), Reduced(), Exact(),
)  # fmt: skip
METHODS: Final[Mapping[MethodName, Method]] = {method.name: method for method in _ALL}


def required_files(plan: Plan, shards: Sequence[Shard]) -> tuple[str, ...]:
    """Return the files of a version with this plan, besides its manifest."""
    reduction = (REDUCTION,) if plan.reduces else ()
    own = METHODS[plan.method].files
    return (VECTORS, ITEMS, *reduction, *own, *(shard.file for shard in shards))


def check(manifest: Manifest) -> None:
    """Raise IndexCorrupt for a manifest that does not fit its search method."""
    missing = set(required_files(manifest.plan, manifest.shards)) - set(manifest.files)
    require(not missing, f"lacks {sorted(missing)}")
    METHODS[manifest.plan.method].check(manifest)

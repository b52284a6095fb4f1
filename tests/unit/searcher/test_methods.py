"""The registry of search methods agrees with the names in other parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from services.searcher.index.index import Index
from services.searcher.index.methods import registry
from services.shared.errors import IndexCorrupt
from services.shared.volume.manifest import MethodName
from services.shared.volume.volume import Volume
from tests.support.volume import items, publish_version, unit_vectors

OPENAPI = Path(__file__).parents[3] / "services/upload/openapi.json"


def test_every_name_has_a_method_and_annoy_is_the_first() -> None:
    """The names that settings and manifests accept are those of the registry, in its order."""
    assert tuple(registry.METHODS) == get_args(MethodName)
    assert list(registry.METHODS)[:2] == ["annoy", "reduced-annoy"]


def test_the_api_description_lists_the_methods() -> None:
    """Clients generated from openapi.json know every method of a collection."""
    schemas = json.loads(OPENAPI.read_text())["components"]["schemas"]
    assert schemas["SearchMethod"]["enum"] == list(registry.METHODS)


def test_a_method_of_a_newer_version_is_refused_by_name(tmp_path: Path) -> None:
    """A plan with an unknown method and field is refused with advice."""
    volume = Volume(tmp_path)
    manifest = publish_version(volume, "birds", unit_vectors(20), items(20), method="exact")
    path = volume.directory("birds", manifest.version) / "manifest.json"
    raw = json.loads(path.read_text())
    path.chmod(0o644)
    path.write_text(json.dumps({**raw, "plan": {"method": "quantum", "dimension": 8, "qubits": 3}}))
    with pytest.raises(IndexCorrupt, match=r"'quantum'.* run the version that built the index"):
        Index.open(volume, "birds", manifest.version)

"""The files of a collection are read back as written, and refused by name when broken."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.shared.errors import (
    IndexCorrupt,
    MalformedRequest,
    NoIndex,
    UnknownCollection,
    UnknownVersion,
)
from services.shared.volume.items import ItemCatalog
from services.shared.volume.manifest import Manifest
from services.shared.volume.volume import Volume, new_version, read_vector
from tests.support.volume import items, publish_version, unit_vectors


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """Publish one collection of 20 items."""
    volume = Volume(tmp_path)
    publish_version(volume, "birds", unit_vectors(20), items(20))
    return volume


def test_a_published_version_reads_back(volume: Volume) -> None:
    """Manifest, items and vectors are read back as they were written."""
    version = volume.active("birds")
    manifest = volume.manifest("birds", version)
    assert Manifest.from_json(manifest.to_json()) == manifest
    linked = replace(manifest, linked_folders=("/disk",), close_above=0.5)
    assert Manifest.from_json(linked.to_json()) == linked
    earlier = json.loads(manifest.to_json())
    del earlier["linked_folders"], earlier["close_above"]
    assert Manifest.from_json(json.dumps(earlier)) == manifest
    assert (manifest.count, manifest.dimension) == (20, 8)
    directory = volume.directory("birds", version)
    assert list(ItemCatalog(directory / "items.sqlite")) == items(20)
    row = struct.unpack("<8f", read_vector(directory, 3, 8))
    assert row == pytest.approx(unit_vectors(20)[3].tolist())
    assert volume.collections() == ["birds"]
    assert volume.versions("birds") == [version]


@pytest.mark.parametrize("name", ["..", "a/b", "", "A", ".hidden", "x" * 64, "a\n", "a\0"])
def test_a_name_can_never_be_a_path(volume: Volume, name: str) -> None:
    """A name with other characters never reaches the file system."""
    with pytest.raises(MalformedRequest):
        volume.home(name)


@pytest.mark.parametrize("version", ["..", "../../etc", "", "20260101T000000Z-xyz"])
def test_a_version_can_never_be_a_path(volume: Volume, version: str) -> None:
    """A malformed version never reaches the file system."""
    with pytest.raises(IndexCorrupt):
        volume.directory("birds", version)


def test_what_is_missing_has_distinct_errors(volume: Volume) -> None:
    """An unknown collection and a collection without an index are different errors."""
    with pytest.raises(UnknownCollection):
        volume.active("fish")
    (volume.root / "fish").mkdir()
    with pytest.raises(NoIndex):
        volume.active("fish")


@pytest.mark.parametrize("text", ["", "../../etc/passwd", "nonsense\n", "\0"])
def test_an_active_file_that_names_no_version_is_corrupt(volume: Volume, text: str) -> None:
    """ACTIVE is never used as a path."""
    (volume.root / "birds" / "ACTIVE").write_text(text)
    with pytest.raises(IndexCorrupt):
        volume.active("birds")


def test_only_what_exists_can_be_activated(volume: Volume) -> None:
    """A version that does not exist is refused, and ACTIVE stays."""
    before = volume.active("birds")
    with pytest.raises(IndexCorrupt):
        volume.activate("birds", "20200101T000000Z-00000000")
    assert volume.active("birds") == before


def _without(field: str) -> Callable[[dict[str, Any]], None]:
    return lambda raw: raw.pop(field)


@pytest.mark.parametrize(
    "damage",
    [
        _without("dimension"),
        _without("files"),
        lambda raw: raw.update(format=3),
        lambda raw: raw.update(metric="euclidean"),
        lambda raw: raw.update(count=0),
        lambda raw: raw.update(count="many"),
        lambda raw: raw.update(dimension=9),
        lambda raw: raw.update(canaries=None),
        lambda raw: raw["files"].pop("annoy-0.ann"),
        lambda raw: raw["files"]["annoy-0.ann"].update(extra=1),
        lambda raw: raw.update(canaries=[-1]),
        lambda raw: raw.update(canaries=[20]),
        lambda raw: raw.update(canaries=[float("inf")]),
        lambda raw: raw.update(recall="high"),
        lambda raw: raw.update(close_above="high"),
        lambda raw: raw.update(close_above=1.5),
        lambda raw: raw.update(close_above=float("nan")),
        lambda raw: raw.update(close_above=True),
        lambda raw: raw.update(created_unix_ms="today"),
        lambda raw: raw.update(model_id=["a"]),
        lambda raw: raw["plan"].update(rerank="all"),
        lambda raw: raw["measured"][0].update(milliseconds=None),
        lambda raw: raw["files"]["annoy-0.ann"].update(bytes="1"),
    ],
)
def test_a_damaged_manifest_is_corrupt(
    volume: Volume, damage: Callable[[dict[str, Any]], None]
) -> None:
    """A missing or invalid field has one named error."""
    version = volume.active("birds")
    path = volume.directory("birds", version) / "manifest.json"
    raw = json.loads(path.read_text())
    damage(raw)
    path.chmod(0o644)
    path.write_text(json.dumps(raw))
    with pytest.raises(IndexCorrupt):
        volume.manifest("birds", version)


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "null",
        '"text"',
        DEEP,
        f'{{"format": {DEEP}}}',
        '{"format": ' + "9" * 5000 + "}",
    ],
    ids=["empty", "list", "open", "null", "text", "deep", "deep inside", "long number"],
)
def test_a_manifest_that_is_no_object_is_corrupt(text: str) -> None:
    """JSON of any other kind, and text that isn't JSON, is refused by name."""
    with pytest.raises(IndexCorrupt):
        Manifest.from_json(text)


def test_a_new_version_is_named_after_all_that_exist() -> None:
    """The name follows the clock, or is a second after the latest where the clock is behind."""
    now = 1_785_320_000.5
    first = new_version([], now)
    assert first.startswith("20260729T101320Z-")
    behind = new_version([first], now - 86_400)
    assert behind.startswith("20260729T101321Z-")
    same_second = new_version([behind, first], now + 1)
    assert first < behind < same_second
    assert new_version([first, behind, same_second], now + 60).startswith("20260729T101420Z-")


def test_odd_names_among_the_versions_do_no_harm() -> None:
    """Names that are no time are skipped; no name is later than the last possible second."""
    assert new_version(["20269999T999999Z-00000000"], 0.0).startswith("19700101T000001Z-")
    last = "99991231T235959Z-00000000"
    assert new_version([last], 0.0).startswith("99991231T235959Z-")


_HOLDER = """
import sys, time
from pathlib import Path
from services.shared.volume.volume import Volume
lease = Volume(Path(sys.argv[1])).hold("birds", sys.argv[2])
print("held", flush=True)
time.sleep(60)
"""


def test_a_version_held_by_another_process_is_not_removed(volume: Volume) -> None:
    """The version stays as long as that process lives; kill -9 releases the lease."""
    version = volume.active("birds")
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(volume.root), version], stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert not volume.remove("birds", version)
        assert volume.manifest("birds", version)
    finally:
        holder.kill()
        holder.communicate()
    assert volume.remove("birds", version)
    assert volume.versions("birds") == []


def test_what_is_not_there_is_neither_held_nor_removed(volume: Volume) -> None:
    """A missing version is corrupt to a reader, and unknown to a command that removes it."""
    with pytest.raises(IndexCorrupt):
        volume.hold("birds", "20200101T000000Z-00000000")
    with pytest.raises(UnknownVersion):
        volume.remove("birds", "20200101T000000Z-00000000")


def test_leases_are_shared(volume: Volume) -> None:
    """Several readers hold one version, and the last of them releases it."""
    version = volume.active("birds")
    first, second = volume.hold("birds", version), volume.hold("birds", version)
    del first
    assert not volume.remove("birds", version)
    del second
    assert volume.remove("birds", version)

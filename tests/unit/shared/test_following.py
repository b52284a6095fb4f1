"""Following the active version: opened beside the old one, refused where it is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.shared.errors import IndexCorrupt, NoIndex, SimileError, UnknownCollection
from services.shared.volume.following import Following
from services.shared.volume.manifest import Manifest
from services.shared.volume.volume import Lease, Volume
from tests.support.volume import items, publish_version, unit_vectors


@dataclass(frozen=True)
class _Version:
    """Holds a version as open."""

    manifest: Manifest
    lease: Lease


@dataclass
class _Follower:
    """Follows the collection "birds", and fails to open the versions in `broken`."""

    volume: Volume
    broken: dict[str, Callable[[], Exception]] = field(default_factory=dict)
    tried: list[str] = field(default_factory=list)
    refusals: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.following = Following(self.volume, self._open, on_refusal=self._refused)
        self.opened: _Version | None = None

    def publish(self, number: int) -> str:
        """Publish and activate a version; return its name."""
        return publish_version(
            self.volume, "birds", unit_vectors(9), items(9), number=number
        ).version

    def look(self, *, retry: bool = False) -> str | None:
        """Follow once; return the version that is open then."""
        newer = self.following.newer("birds", self.answering, retry=retry)
        self.opened = self.opened if newer is None else newer
        return self.answering

    @property
    def answering(self) -> str | None:
        """The name of the open version."""
        return None if self.opened is None else self.opened.manifest.version

    def _open(self, collection: str, version: str) -> _Version:
        self.tried.append(version)
        lease = self.volume.hold(collection, version)
        if version in self.broken:
            fault = self.broken[version]
            raise fault()
        return _Version(self.volume.manifest(collection, version), lease)

    def _refused(self, collection: str, error: SimileError) -> None:
        self.refusals.append((collection, error.code))


def _torn() -> IndexCorrupt:
    return IndexCorrupt("torn")


@pytest.fixture
def follower(tmp_path: Path) -> _Follower:
    """A follower of a volume without a collection."""
    return _Follower(Volume(tmp_path))


def test_a_version_is_opened_once(follower: _Follower) -> None:
    """The version that is open already is returned as it is."""
    first = follower.publish(1)
    assert follower.look() == first
    opened = follower.opened
    assert follower.look() == first
    assert follower.opened is opened
    assert follower.tried == [first]


@pytest.mark.parametrize(
    ("error", "reason"), [(_torn, "torn"), (ZeroDivisionError, "ZeroDivision")]
)
def test_a_broken_version_is_refused_once_and_the_old_one_stays_open(
    follower: _Follower, error: Callable[[], Exception], reason: str
) -> None:
    """The refusal has its reason, is reported once, and the version is not tried again."""
    first = follower.publish(1)
    follower.look()
    second = follower.publish(2)
    follower.broken[second] = error
    with capture_logs() as logs:
        assert [follower.look(), follower.look()] == [first, first]
    assert follower.tried == [first, second]
    assert follower.refusals == [("birds", "index_corrupt")]
    assert set(follower.following.refused) == {"birds"}
    assert reason in follower.following.reason("birds")
    (refused,) = [line for line in logs if line.get("action") == "index_corrupt"]
    assert (refused["refused_version"], refused["answering_version"]) == (second, first)


def test_a_refused_version_is_not_held(follower: _Follower) -> None:
    """The remembered refusal keeps no lease: the broken version can be removed."""
    first = follower.publish(1)
    follower.broken[first] = _torn
    assert follower.look() is None
    follower.broken.clear()
    assert follower.volume.remove("birds", first)


def test_a_repaired_version_is_opened_when_it_is_tried_again(follower: _Follower) -> None:
    """With `retry`, a refused version is opened once it is sound; the refusal is reported once."""
    first = follower.publish(1)
    follower.broken[first] = _torn
    assert [follower.look(), follower.look(retry=True)] == [None, None]
    assert follower.refusals == [("birds", "index_corrupt")]
    follower.broken.clear()
    assert follower.look() is None
    assert follower.look(retry=True) == first
    assert not follower.following.refused
    assert not follower.following.reason("birds")


def test_a_version_that_is_not_admitted_is_neither_opened_nor_refused(follower: _Follower) -> None:
    """The caller decides by the manifest, before anything is opened."""
    first = follower.publish(1)
    sizes = list[int]()

    def admits(manifest: Manifest) -> bool:
        sizes.append(manifest.bytes)
        return False

    assert follower.following.newer("birds", None, admits=admits) is None
    assert sizes == [follower.volume.manifest("birds", first).bytes]
    assert not follower.tried
    assert not follower.following.refused


def test_the_fault_of_the_machine_is_no_refusal(follower: _Follower) -> None:
    """An OSError while a version is opened goes to the caller."""
    follower.broken[follower.publish(1)] = lambda: OSError("too many open files")
    with pytest.raises(OSError, match="too many"):
        follower.look()
    assert not follower.following.refused


def test_a_collection_without_an_active_version_has_its_own_error(follower: _Follower) -> None:
    """A missing collection, or one without a version, is no broken version."""
    with pytest.raises(UnknownCollection):
        follower.look()
    (follower.volume.root / "birds").mkdir()
    with pytest.raises(NoIndex):
        follower.look()
    assert not follower.refusals

"""Deleting a collection: nothing of it stays, and nothing else goes."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from services.searcher.admin.removal import delete_collection, find_collection
from services.searcher.build.build_lock import locked
from services.shared.errors import BuildInProgress, FileUnusable, UnknownCollection
from services.shared.volume.volume import Volume
from tests.support.volume import items, publish_version, unit_vectors


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """Two collections; one has two versions, a pin, and the remains of a build."""
    volume = Volume(tmp_path)
    for number in range(2):
        publish_version(volume, "birds", unit_vectors(9), items(9), number=number)
    publish_version(volume, "fish", unit_vectors(9), items(9))
    home = volume.home("birds")
    (home / "PINNED").write_text(volume.active("birds"))
    (home / "building" / "journal.sqlite").touch()
    return volume


def test_nothing_of_the_collection_stays(volume: Volume) -> None:
    """All versions, the pin, what builds keep; the other collection is untouched."""
    removed = delete_collection(volume, "birds")
    assert removed.versions == 2
    assert removed.bytes > 9 * 8 * 4
    assert {path.name for path in volume.root.iterdir()} == {"fish"}
    assert volume.collections() == ["fish"]
    with pytest.raises(UnknownCollection):
        delete_collection(volume, "birds")


def test_the_name_is_free_again(volume: Volume) -> None:
    """A new collection of the same name has nothing of the old one."""
    delete_collection(volume, "birds")
    manifest = publish_version(volume, "birds", unit_vectors(5), items(5))
    assert volume.versions("birds") == [manifest.version]


def test_a_version_in_use_keeps_its_files_open(volume: Volume) -> None:
    """A service that reads a version goes on reading until it closes it."""
    lease = volume.hold("birds", volume.active("birds"))
    vectors = volume.directory("birds", volume.active("birds")) / "vectors.f32"
    with vectors.open("rb") as file:
        delete_collection(volume, "birds")
        assert len(file.read()) == 9 * 8 * 4
    del lease


def test_a_collection_that_is_being_built_is_not_deleted(volume: Volume) -> None:
    """The error names the build; the collection stays whole."""
    with locked(volume.home("birds")), pytest.raises(BuildInProgress, match="build of birds"):
        delete_collection(volume, "birds")
    assert len(volume.versions("birds")) == 2


def test_a_build_that_begins_meanwhile_does_not_go_on_in_a_deleted_folder(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build whose lock file is gone ends with an error instead of losing its work."""
    home = volume.home("birds")

    def deletes_first(_handle: object, _operation: int) -> None:
        home.rename(home.with_name(".deleted-birds-00000000"))

    monkeypatch.setattr(fcntl, "flock", deletes_first)
    with pytest.raises(BuildInProgress, match="deleted a moment ago"), locked(home):
        pass


def test_the_rest_of_an_interrupted_deletion_goes_too(volume: Volume) -> None:
    """A folder that an earlier attempt renamed is removed with the next one."""
    left = volume.root / ".deleted-birds-0123abcd"
    left.mkdir()
    (left / "ACTIVE").touch()
    other = volume.root / ".deleted-birds-of-prey-0123abcd"
    other.mkdir()
    delete_collection(volume, "birds")
    assert not left.exists()
    assert other.exists()


def test_a_folder_that_is_no_collection_is_left_alone(volume: Volume) -> None:
    """A root such as the home folder has folders that only look like collections by name."""
    (volume.root / "documents").mkdir()
    (volume.root / "documents" / "letter.txt").touch()
    with pytest.raises(UnknownCollection, match="holds no collection"):
        delete_collection(volume, "documents")
    (volume.home("birds") / "letter.txt").touch()
    with pytest.raises(FileUnusable, match=r"letter\.txt is no part of a collection"):
        find_collection(volume, "birds")
    assert (volume.root / "documents" / "letter.txt").exists()
    assert len(volume.versions("birds")) == 2

"""Index builds set labels, report failures, reuse vectors, resume, and publish versions."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from services.searcher.admin import pin, versions
from services.searcher.progress import NoProgress
from services.searcher.settings import IndexSettings
from services.shared.contracts import Failure
from services.shared.errors import BuildFailed, BuildInProgress
from services.shared.lifecycle import cancel
from services.shared.volume.volume import Volume, read_vector
from tests.support.build_site import NAME, Site
from tests.support.fake_embedder import fake_embedder, vector_of
from tests.support.pictures import plain_jpeg
from tests.support.volume import DIMENSION


def left(site: Site) -> list[Path]:
    """Return the files that a build left in its folder `building`."""
    return sorted((site.volume.home(NAME) / "building").iterdir())


async def test_labels_are_the_first_folders_names(site: Site) -> None:
    """Items have the order of their paths, the size of their headers, and their own vectors."""
    report = await site.build()
    assert report.published
    assert (report.manifest.count, report.embedded, report.failures) == (3, 3, ())
    assert [(item.path, item.label) for item in site.items()] == [
        ("blue/deep/two.jpg", "blue"),
        ("red/one.jpg", "red"),
        ("three.jpg", ""),
    ]
    assert {(item.width, item.height) for item in site.items()} == {(40, 30)}
    for item in site.items():
        stored = read_vector(site.directory(), item.position, DIMENSION)
        assert stored == vector_of((site.folder / item.path).read_bytes())


async def test_a_listing_gives_labels_and_attributes(site: Site) -> None:
    """manifest.csv lists the images, and its other columns become attributes."""
    (site.folder / "manifest.csv").write_text(
        "path,label,author\nthree.jpg,third,Ann\nred/one.jpg,first,Bo\n"
    )
    await site.build()
    found = [(item.path, item.label, dict(item.attributes)) for item in site.items()]
    assert found == [
        ("red/one.jpg", "first", {"author": "Bo"}),
        ("three.jpg", "third", {"author": "Ann"}),
    ]


async def test_a_listing_can_not_lead_out_of_the_folder(site: Site, tmp_path: Path) -> None:
    """Neither `..`, nor an absolute path, nor a link reaches another file."""
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(plain_jpeg((9, 9, 9), (40, 30)))
    (site.folder / "link.jpg").symlink_to(secret)
    (site.folder / "manifest.csv").write_text(
        f"path\nthree.jpg\n../secret.jpg\n{secret}\nlink.jpg\nmissing.jpg\n"
    )
    report = await site.build()
    assert report.manifest.count == 1
    assert len(report.failures) == 4
    assert {failure.code for failure in report.failures} == {"unknown_item"}


async def test_a_listing_without_paths_is_refused(site: Site) -> None:
    """The error names the missing column."""
    (site.folder / "manifest.csv").write_text("file,label\nthree.jpg,x\n")
    with pytest.raises(BuildFailed, match="path"):
        await site.build()


async def test_a_clock_set_back_does_not_change_the_order_of_versions(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list, rollback and prune follow the order in which versions were built."""
    site.settings = site.settings.model_copy(update={"keep_versions": 5})
    first = (await site.build()).manifest.version
    site.draw("four.jpg", 4)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86_400)
    second = (await site.build()).manifest.version
    site.draw("five.jpg", 5)
    third = (await site.build()).manifest.version
    assert site.volume.versions(NAME) == [first, second, third]
    assert versions.rollback(site.volume, NAME) == second
    assert versions.rollback(site.volume, NAME) == first
    monkeypatch.setattr(time, "time", real)
    versions.activate(site.volume, NAME, third)
    rows = versions.prune(site.volume, NAME, keep=1, min_age_seconds=0)
    assert [(row.version, row.fate) for row in rows] == [
        (first, "removed"), (second, "kept"), (third, "active"),
    ]  # fmt: skip


async def test_bad_files_are_reported_and_left_out(site: Site) -> None:
    """Files that are no image or can't be embedded are named with a code; the rest is built."""
    (site.folder / "notes.txt").write_text("no image")
    bad = site.draw("red/bad.jpg", 4)
    site.embedder.failing[bad] = Failure("undecodable_image", "truncated")
    report = await site.build()
    failures = {failure.path: failure.code for failure in report.failures}
    assert failures == {"notes.txt": "unsupported_format", "red/bad.jpg": "undecodable_image"}
    assert report.manifest.count == 3


async def test_nothing_to_build_is_an_error_that_says_so(site: Site, tmp_path: Path) -> None:
    """An empty folder, and a folder without a usable image, both fail by name."""
    site.folder = tmp_path / "empty"
    site.folder.mkdir()
    with pytest.raises(BuildFailed, match="holds no files"):
        await site.build()
    (site.folder / "notes.txt").write_text("no image")
    with pytest.raises(BuildFailed, match="no image"):
        await site.build()


async def test_an_unchanged_folder_publishes_nothing(site: Site) -> None:
    """A second build requests a single vector, to learn the model, and keeps the version."""
    first = await site.build()
    second = await site.build()
    assert not second.published
    assert second.manifest.version == first.manifest.version
    assert len(site.embedder.embedded) == 4


async def test_only_what_changed_is_embedded(site: Site) -> None:
    """New content is embedded, known content reused under a new name, deleted files removed."""
    await site.build()
    before = len(site.embedder.embedded)
    added = site.draw("red/new.jpg", 5)
    (site.folder / "three.jpg").rename(site.folder / "red" / "moved.jpg")
    (site.folder / "red" / "one.jpg").unlink()
    report = await site.build()
    assert report.published
    assert (report.manifest.count, report.embedded, report.reused) == (3, 1, 2)
    assert added in site.embedder.embedded[before:]
    assert len(site.embedder.embedded) - before <= 2
    assert [item.path for item in site.items()] == [
        "blue/deep/two.jpg",
        "red/moved.jpg",
        "red/new.jpg",
    ]


async def test_another_model_embeds_everything_again(site: Site) -> None:
    """Vectors of different models are never mixed."""
    await site.build()
    site.embedder.model_id = "other@0123456789ab/pixels/8"
    report = await site.build()
    assert report.embedded == 3
    manifest = site.volume.manifest(NAME, site.volume.active(NAME))
    assert manifest.model_id == "other@0123456789ab/pixels/8"


async def test_an_interrupted_build_continues_where_it_was(site: Site) -> None:
    """Vectors from before the interruption are used again, except the first."""
    for seed in range(10, 30):
        site.draw(f"many/{seed}.jpg", seed)
    site.embedder.silent_after = 12
    building = asyncio.create_task(site.build())
    while len(site.embedder.embedded) < 12:
        await asyncio.sleep(0)
    await cancel(building)
    site.embedder.silent_after = None
    site.broker.sever()
    async with fake_embedder(site.broker) as second:
        report = await site.build()
    assert report.manifest.count == 23
    assert len(set(second.embedded) & set(site.embedder.embedded)) <= 2
    assert report.embedded <= 23 - 12 + 1


async def test_two_builds_of_one_collection_exclude_each_other(site: Site) -> None:
    """The second build is refused by name while the first runs."""
    site.embedder.silent_after = 0
    building = asyncio.create_task(site.build())
    while not (site.volume.root / NAME / ".lock").exists():
        await asyncio.sleep(0)
    with pytest.raises(BuildInProgress):
        await site.build()
    await cancel(building)


async def test_a_root_that_can_not_be_written_is_named(site: Site) -> None:
    """The error names the folder and the reason, without a number of the operating system."""
    site.volume = Volume(Path("/proc/nope"))
    with pytest.raises(BuildFailed) as raised:
        await site.build()
    assert str(raised.value) == "/proc/nope can't be used: No such file or directory"


@dataclass
class _Meanwhile(NoProgress):
    """Calls a function when a stage of the build begins."""

    stage: str
    act: Callable[[], object]

    def begin(self, stage: str, total: int | None, unit: str = "images") -> None:
        """Call the function once, at the stage."""
        del total, unit
        if stage == self.stage:
            self.stage = ""
            self.act()


def _replace(folder: Path) -> None:
    """Replace the folder by an empty one, as when a mount is lost."""
    folder.rename(folder.with_name("away"))
    folder.mkdir()


@pytest.mark.parametrize("stage", ["reading", "embedding"])
@pytest.mark.parametrize(
    ("act", "words"),
    [
        (_replace, "was replaced|could be embedded|no longer there"),
        (shutil.rmtree, "can't be read|could be|no longer there"),
    ],
    ids=["replaced", "gone"],
)
async def test_a_folder_that_is_lost_in_the_middle_publishes_nothing(
    site: Site, stage: str, act: Callable[[Path], object], words: str
) -> None:
    """A version without the lost images would be worse than the old version."""
    first = await site.build()
    for seed in range(20, 30):
        site.draw(f"many/{seed}.jpg", seed)
    with pytest.raises(BuildFailed, match=words):
        await site.build(_Meanwhile(stage, lambda: act(site.folder)))
    assert site.volume.active(NAME) == first.manifest.version


async def test_a_file_that_changes_while_it_is_read_is_reported(site: Site) -> None:
    """The file whose bytes differ from the hashed ones fails, and the next run takes it."""
    changing = site.folder / "red" / "one.jpg"
    site.draw("red/zero.jpg", 7)
    progress = _Meanwhile("embedding", lambda: site.draw("red/one.jpg", 8))
    report = await site.build(progress)
    (failure,) = report.failures
    assert failure.path == "red/one.jpg"
    assert "changed while the index was built" in failure.detail
    assert changing.exists()
    again = await site.build()
    assert (again.manifest.count, again.failures) == (4, ())


async def test_a_file_replaced_within_a_moment_is_read_again(site: Site) -> None:
    """Equal size and time prove nothing, since a file system's clock is coarse."""
    file = site.folder / "red" / "one.jpg"
    file.write_bytes(file.read_bytes().ljust(4000, b"\0"))
    stat = file.stat()
    await site.build()
    other = plain_jpeg((250, 1, 9), (40, 30)).ljust(4000, b"\0")
    file.write_bytes(other)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    report = await site.build()
    assert report.embedded == 1
    assert other in site.embedder.embedded


async def test_a_file_that_failed_is_read_again(site: Site) -> None:
    """A replaced file whose time was set back does not fail again."""
    for path in site.folder.rglob("*.jpg"):
        os.utime(path, (1e9, 1e9))
    site.embedder.failing[(site.folder / "three.jpg").read_bytes()] = Failure("internal", "no")
    site.settings = site.settings.model_copy(update={"attempts": 1})
    assert len((await site.build()).failures) == 1
    replaced = site.folder / "three.jpg"
    size = replaced.stat().st_size
    content = plain_jpeg((250, 1, 9), (40, 30))
    replaced.write_bytes(content[:size].ljust(size, b"\0"))
    os.utime(replaced, (1e9, 1e9))
    report = await site.build()
    assert report.failures == ()
    assert report.manifest.count == 3


async def test_odd_files_and_names_are_taken_or_reported(site: Site) -> None:
    """Names with control characters or markup are indexed; empty files and loops are reported."""
    names = ["line\nbreak.jpg", "[red]a[/b].jpg", "\x1b[2J.jpg", " .jpg", "ünï😀.jpg"]
    for seed, name in enumerate(names):
        site.draw(f"odd/{name}", 40 + seed)
    (site.folder / "empty.jpg").touch()
    (site.folder / "odd" / "round").symlink_to(site.folder)
    report = await site.build()
    assert {item.path for item in site.items() if item.label == "odd"} == {
        f"odd/{name}" for name in names
    }
    assert {failure.path: failure.code for failure in report.failures} == {
        "empty.jpg": "empty_image", "odd/round": "unknown_item",
    }  # fmt: skip


async def test_silent_embedders_fail_the_build_by_name(site: Site) -> None:
    """After its attempts the build fails, and names the embedders and the next step."""
    site.embedder.silent_after = 0
    site.settings = IndexSettings(answer_timeout_seconds=0.02, attempts=2, trees=5)
    with pytest.raises(BuildFailed, match="check that one runs"):
        await site.build()


async def test_a_lost_connection_is_waited_for(site: Site) -> None:
    """When the connection to the broker is lost and returns, the build completes."""
    for seed in range(10, 20):
        site.draw(f"many/{seed}.jpg", seed)
    site.embedder.silent_after = 5
    building = asyncio.create_task(site.build())
    while len(site.embedder.embedded) < 5:
        await asyncio.sleep(0)
    site.embedder.silent_after = None
    site.broker.sever()
    async with fake_embedder(site.broker):
        report = await building
    assert report.manifest.count == 13


async def test_equal_pictures_are_embedded_once_and_listed_twice(site: Site) -> None:
    """Two files of equal content share a vector and keep their own ids."""
    copied = site.folder / "red" / "copy.jpg"
    copied.write_bytes((site.folder / "three.jpg").read_bytes())
    os.utime(copied)
    report = await site.build()
    assert (report.manifest.count, report.embedded) == (4, 3)
    assert len({item.item_id for item in site.items()}) == 4
    rows = [read_vector(site.directory(), item.position, DIMENSION) for item in site.items()]
    assert len(set(rows)) == 3
    assert np.isfinite(np.frombuffer(b"".join(rows), "<f4")).all()


async def test_copies_of_a_picture_that_fails_fail_with_it(site: Site) -> None:
    """A broken file with a copy is reported twice, and does not stop the build."""
    bad = site.draw("red/bad.jpg", 4)
    site.draw("blue/bad.jpg", 4)
    site.embedder.failing[bad] = Failure("undecodable_image", "truncated")
    report = await site.build()
    assert report.manifest.count == 3
    assert [failure.path for failure in report.failures] == ["blue/bad.jpg", "red/bad.jpg"]


async def test_a_fault_of_the_embedder_costs_one_picture(site: Site) -> None:
    """A picture that the embedder fails on, for any reason, is named; the rest is built."""
    bad = site.draw("zoo/bad.jpg", 4)
    site.embedder.failing[bad] = Failure("internal", "out of memory")
    site.settings = site.settings.model_copy(update={"attempts": 2})
    report = await site.build()
    assert report.manifest.count == 3
    assert [(failure.path, failure.code) for failure in report.failures] == [
        ("zoo/bad.jpg", "internal")
    ]


async def test_a_picture_that_is_never_answered_costs_only_itself(site: Site) -> None:
    """Since other pictures are answered, the picture is at fault, not the embedders."""
    site.embedder.ignoring.add(site.draw("zoo/bad.jpg", 4))
    site.settings = IndexSettings(answer_timeout_seconds=1, attempts=2, trees=5)
    report = await site.build()
    assert report.manifest.count == 3
    assert [failure.code for failure in report.failures] == ["deadline_exceeded"]


async def test_a_name_that_is_no_text_is_reported(site: Site) -> None:
    """A name in another encoding is reported in readable form, and left out."""
    name = os.fsdecode(b"caf\xe9.jpg")
    site.draw(name, 4)
    report = await site.build()
    assert report.manifest.count == 3
    assert [failure.path for failure in report.failures] == ["caf\\udce9.jpg"]


async def test_a_listing_may_hold_any_text(site: Site) -> None:
    """A NUL in a path, a row without a path and a row too long are reported; the rest is built."""
    (site.folder / "manifest.csv").write_text(
        "label,path,author\na,thr\0ee.jpg,x\nb\nc,three.jpg\nd,red/one.jpg,Ann,too,long\n"
    )
    report = await site.build()
    assert [(item.path, item.label) for item in site.items()] == [("three.jpg", "c")]
    assert {failure.path: failure.code for failure in report.failures} == {
        "thr\0ee.jpg": "unknown_item",
        "manifest.csv, line 3": "invalid_row",
        "red/one.jpg": "invalid_row",
    }


async def test_a_path_given_twice_is_reported(site: Site) -> None:
    """The last row counts, in any spelling of the path, and the repetition is reported."""
    (site.folder / "manifest.csv").write_text("path,label\nthree.jpg,house\n./three.jpg,sun\n")
    report = await site.build()
    assert [(item.path, item.label) for item in site.items()] == [("three.jpg", "sun")]
    (failure,) = report.failures
    assert (failure.path, failure.code) == ("three.jpg", "invalid_row")
    assert "2 times" in failure.detail


@pytest.mark.parametrize(
    "content", ["path;label\nthree.jpg;house\n", "Path,LABEL\r\nthree.jpg,house\r\n"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
async def test_a_listing_is_read_as_spreadsheets_write_it(
    site: Site, content: str, encoding: str
) -> None:
    """Semicolons, names in other cases, a byte order mark and UTF-16 are accepted."""
    (site.folder / "manifest.csv").write_bytes(content.encode(encoding))
    await site.build()
    assert [(item.path, item.label) for item in site.items()] == [("three.jpg", "house")]


async def test_damaged_vectors_are_not_used_again(site: Site) -> None:
    """A flipped bit in the active version is repaired by the next build, not copied."""
    await site.build()
    file = site.directory() / "vectors.f32"
    sound = file.read_bytes()
    file.write_bytes(sound[:5] + bytes([sound[5] ^ 0xFF]) + sound[6:])
    report = await site.build()
    assert report.published
    assert (site.directory() / "vectors.f32").read_bytes() == sound


async def test_another_recall_is_a_reason_to_build(site: Site) -> None:
    """An index built for another target is built again, from the same vectors."""
    report = await site.build()
    manifest = site.volume.manifest(NAME, report.manifest.version)
    poor = dataclasses.replace(manifest, recall_target=0.5)
    (site.directory() / "manifest.json").write_text(poor.to_json())
    again = await site.build()
    assert again.published
    assert (again.embedded, again.manifest.recall_target) == (0, 0.99)


async def test_the_files_of_a_killed_build_are_removed(site: Site) -> None:
    """Half-written versions don't accumulate on the volume."""
    left = site.volume.home(NAME) / "building" / "20200101T000000Z-00000000"
    left.mkdir(parents=True)
    (left / "vectors.f32").write_bytes(b"half")
    await site.build()
    assert not left.exists()


async def test_a_volume_that_can_not_be_written_fails_by_name(site: Site) -> None:
    """The error names the unusable path, without a traceback."""
    site.volume.root.mkdir()
    (site.volume.root / NAME).write_bytes(b"a file where the folder should be")
    with pytest.raises(BuildFailed, match="can't be used"):
        await site.build()


async def test_a_damaged_journal_fails_by_name(site: Site) -> None:
    """A file that is no journal is a named error."""
    journal = site.volume.home(NAME) / "building" / "journal.sqlite"
    journal.parent.mkdir(parents=True)
    journal.write_bytes(b"rubbish" * 200)
    with pytest.raises(BuildFailed, match="can't be used"):
        await site.build()


async def test_an_unchanged_folder_leaves_no_vectors_behind(site: Site) -> None:
    """The vector that reveals the model is removed after a build without changes, as after any."""
    for _ in range(2):
        await site.build()
        assert [file.name for file in left(site)] == ["journal.sqlite"]


async def test_a_vector_damaged_before_it_is_published_is_requested_again(site: Site) -> None:
    """A vector that the disk damaged after an interrupted build reaches no version."""
    for seed in range(10, 20):
        site.draw(f"many/{seed}.jpg", seed)
    site.embedder.silent_after = 12
    building = asyncio.create_task(site.build())
    while len(site.embedder.embedded) < 12:
        await asyncio.sleep(0)
    await cancel(building)
    site.embedder.silent_after = None
    site.broker.sever()
    (file,) = (site.volume.home(NAME) / "building").glob("vectors-*.f32")
    file.write_bytes(bytes(file.stat().st_size))
    async with fake_embedder(site.broker):
        with pytest.raises(BuildFailed, match="lost; run the build again"):
            await site.build()
        report = await site.build()
    assert report.manifest.count == 13
    for item in site.items():
        stored = read_vector(site.directory(), item.position, DIMENSION)
        assert stored == vector_of((site.folder / item.path).read_bytes())


class Held(NoProgress):
    """Blocks the thread that writes a version until the test releases it."""

    def __init__(self) -> None:
        self.writing, self.go_on = threading.Event(), threading.Event()

    def begin(self, stage: str, total: int | None, unit: str = "images") -> None:
        """Wait where the writing begins."""
        super().begin(stage, total, unit)
        if stage == "writing":
            self.writing.set()
            self.go_on.wait()


async def test_a_build_interrupted_while_it_writes_leaves_nothing(site: Site) -> None:
    """The thread ends under the lock, no partial files stay, and no image is embedded twice."""
    progress = Held()
    building = asyncio.create_task(site.build(progress))
    await asyncio.to_thread(progress.writing.wait)
    interrupting = asyncio.create_task(cancel(building))
    for _ in range(20):  # until the cancellation has reached the thread
        await asyncio.sleep(0)
    with pytest.raises(BuildInProgress):
        await site.build()
    progress.go_on.set()
    await interrupting
    assert building.cancelled()
    assert not [file for file in left(site) if file.is_dir()]
    assert site.volume.versions(NAME) == []
    report = await site.build()
    assert (report.manifest.count, len(site.embedder.embedded)) == (3, 4)


@pytest.fixture
def small_volume(tmp_path: Path) -> Iterator[Path]:
    """Mount a volume of 4 MB."""
    root = tmp_path / "root"
    root.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(root)],
        check=False, capture_output=True,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("only root can mount a small volume")
    yield root
    subprocess.run(["umount", "-l", str(root)], check=True)


@pytest.mark.parametrize("free_bytes", [0, 60_000, 350_000, 400_000, 450_000])
async def test_a_full_volume_costs_no_version(
    site: Site, small_volume: Path, free_bytes: int
) -> None:
    """A build without space fails by name, keeps the old version, and succeeds with space."""
    before = await site.build()
    for seed in range(400):
        site.draw(f"many/{seed}.jpg", seed)
    ballast = small_volume / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_volume).free - free_bytes))
    with pytest.raises(BuildFailed, match=r"no space left for .*root|is the volume full"):
        await site.build()
    assert site.volume.active(NAME) == before.manifest.version
    assert not [file for file in left(site) if file.is_dir()]
    ballast.unlink()
    report = await site.build()
    assert report.published
    assert len(site.embedder.embedded) <= report.manifest.count + 260


async def test_images_too_large_for_callers_are_made_to_fit(site: Site) -> None:
    """Large photographs are indexed, and the embedders receive images within their limits."""
    noise = Image.effect_noise((1200, 900), 90).convert("RGB")
    large = site.folder / "large.jpg"
    noise.save(large, "JPEG", quality=95)
    noise.resize((400, 300)).save(site.folder / "large.tif", "TIFF")
    limit = 200_000
    report = await site.build(image_max_bytes=limit, image_max_pixels=500_000)
    assert large.stat().st_size > limit
    assert report.failures == ()
    assert {"large.jpg", "large.tif"} <= {item.path for item in site.items()}
    assert max(map(len, site.embedder.embedded)) <= limit


async def test_a_folder_of_large_images_alone_learns_its_model(site: Site) -> None:
    """The model, which determines the reduction, is learned from a small picture."""
    for file in site.folder.rglob("*.jpg"):
        file.unlink()
    Image.effect_noise((1200, 900), 90).save(site.folder / "large.jpg", "JPEG", quality=95)
    report = await site.build(image_max_bytes=200_000)
    assert [item.path for item in site.items()] == ["large.jpg"]
    assert (report.failures, report.embedded) == ((), 1)


async def test_an_image_left_out_by_a_limit_names_the_setting(site: Site) -> None:
    """The report names the setting that admits the image."""
    site.settings = site.settings.model_copy(update={"image_max_bytes": 1024})
    Image.effect_noise((400, 300), 90).save(site.folder / "large.png", "PNG")
    report = await site.build(image_max_bytes=2048)
    (failure,) = report.failures
    assert (failure.path, failure.code) == ("large.png", "image_too_large")
    assert "SIMILE_INDEX_IMAGE_MAX_BYTES" in failure.detail


async def test_a_rollback_that_is_pinned_survives_builds(site: Site) -> None:
    """Builds publish new content once, and the pinned version stays active."""
    old = (await site.build()).manifest.version
    site.draw("green/four.jpg", 4)
    await site.build()
    versions.rollback(site.volume, NAME)
    pin.pin(site.volume, NAME)
    unchanged = await site.build()
    assert (unchanged.published, unchanged.pinned) == (False, True)
    site.draw("green/five.jpg", 5)
    newer = await site.build()
    assert (newer.published, newer.embedded, newer.pinned) == (True, 1, True)
    assert not (await site.build()).published
    assert site.volume.active(NAME) == old
    pin.unpin(site.volume, NAME)
    last = await site.build()
    assert (last.published, last.pinned) == (True, False)
    assert site.volume.active(NAME) == last.manifest.version


async def test_a_rollback_without_a_pin_lasts_until_the_next_build(site: Site) -> None:
    """A build pins nothing by itself."""
    await site.build()
    site.draw("green/four.jpg", 4)
    newer = (await site.build()).manifest
    versions.rollback(site.volume, NAME)
    last = await site.build()
    assert not last.pinned
    assert site.volume.active(NAME) == last.manifest.version
    assert last.manifest.count == newer.count

"""A build writes its progress to the volume, and other processes read it from there."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from services.searcher.build.shown_build import shown_on_volume
from services.searcher.progress import CountedProgress, NoProgress
from services.shared.volume.build_progress import BUILDING, PROGRESS, BuildProgress, BuildWatch
from services.shared.volume.volume import Volume
from tests.support.clock import Clock


def _progress(**changed: object) -> BuildProgress:
    fields = {
        "stage": "embedding", "done": 812, "total": 4210, "failed": 3, "eta_seconds": 20.4,
        "build": "b", "beat": 1, "written_unix_ms": time.time_ns() // 1_000_000,
    }  # fmt: skip
    return BuildProgress(**{**fields, **changed})  # type: ignore[arg-type]


def test_a_running_build_is_seen_from_elsewhere(tmp_path: Path) -> None:
    """The file follows the build without action of the builder, and is removed with the build."""
    volume = Volume(tmp_path)
    building = volume.home("birds") / BUILDING
    with shown_on_volume(building, NoProgress(), every_seconds=0.001) as shown:
        shown.begin("embedding", 10)
        shown.advance(2)
        seen = BuildWatch(volume).of("birds")
        while seen is None or seen.done != 2:  # pytest's timeout bounds the wait
            seen = BuildWatch(volume).of("birds")
        assert (seen.stage, seen.total) == ("embedding", 10)
        assert list(BuildWatch(volume).running()) == ["birds"]
    assert BuildWatch(volume).running() == {}
    assert list((volume.home("birds") / BUILDING).iterdir()) == []


def test_a_build_that_fails_leaves_no_file(tmp_path: Path) -> None:
    """A failed build removes its file, so that the collection does not look in preparation."""
    with pytest.raises(RuntimeError), shown_on_volume(tmp_path, NoProgress()):
        raise RuntimeError
    assert not (tmp_path / PROGRESS).exists()


def test_a_dead_build_does_not_look_alive(tmp_path: Path) -> None:
    """A file that is not updated for 15 seconds counts as no build, until it is updated."""
    volume, clock = Volume(tmp_path), Clock()
    building = volume.home("birds") / BUILDING
    watch = BuildWatch(volume, clock)
    _progress().write(building)
    assert watch.of("birds") is not None
    clock.now += 14
    assert watch.of("birds") is not None
    clock.now += 2
    assert watch.of("birds") is None
    _progress(beat=2).write(building)
    assert watch.of("birds") is not None


@pytest.mark.parametrize("hours", [-3, 3])
def test_clocks_that_differ_do_not_matter(tmp_path: Path, hours: int) -> None:
    """A file dated in the past or future counts once it changes: only its clock is wrong."""
    volume, building = Volume(tmp_path), tmp_path / "birds" / BUILDING
    watch = BuildWatch(volume)
    written = time.time_ns() // 1_000_000 + hours * 3_600_000
    _progress(written_unix_ms=written).write(building)
    assert watch.of("birds") is None
    assert watch.of("birds") is None
    _progress(written_unix_ms=written, beat=2).write(building)
    assert watch.of("birds") is not None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"stage": "embedding"}', "\0"])
def test_what_is_no_progress_is_no_build(tmp_path: Path, text: str) -> None:
    """A file of another version, or a broken one, is ignored."""
    building = tmp_path / "birds" / BUILDING
    building.mkdir(parents=True)
    (building / PROGRESS).write_text(text)
    assert BuildWatch(Volume(tmp_path)).running() == {}


def test_only_stages_of_images_count_images() -> None:
    """Stages of trees and rows keep the count of images; failures add up over all stages."""
    shown = CountedProgress(NoProgress())
    assert (shown.shown().stage, shown.shown().total) == ("listing", None)
    shown.begin("reading", 4)
    shown.advance(3)
    shown.advance(failed=True)
    shown.begin("embedding", 3)
    shown.advance(3)
    shown.begin("growing trees", 9, "files")
    shown.advance(5)
    seen = shown.shown()
    assert (seen.stage, seen.done, seen.total, seen.failed) == ("growing trees", 3, 3, 1)


def test_the_time_left_follows_the_pace() -> None:
    """The estimate starts after the first images, and exists in the embedding stage alone."""
    clock = Clock()
    shown = CountedProgress(NoProgress(), clock)
    shown.begin("embedding", 108)
    clock.now += 30  # until an embedder has loaded its model
    shown.advance(8)
    assert shown.shown().eta_seconds is None
    clock.now += 5
    shown.advance(50)
    assert shown.shown().eta_seconds == pytest.approx(5.0)
    shown.begin("writing", 108, "items")
    assert shown.shown().eta_seconds is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "812 of 4,210 images, about 20 s"),
        ({"eta_seconds": None}, "812 of 4,210 images"),
        ({"total": None, "stage": "listing"}, "listing"),
        ({"stage": "reading", "eta_seconds": None}, "reading 812 of 4,210 images"),
        ({"stage": "growing trees"}, "growing trees"),
    ],
)
def test_progress_reads_as_words(changed: dict[str, object], words: str) -> None:
    """The text is that of answers and log lines."""
    assert str(_progress(**changed)) == words


def test_the_file_holds_what_the_documentation_says(tmp_path: Path) -> None:
    """The file is plain JSON, for scripts that read the volume."""
    _progress().write(tmp_path)
    held = json.loads((tmp_path / PROGRESS).read_text())
    assert {"stage", "done", "total", "failed", "eta_seconds"} < set(held)

"""Tests the parts of `simile up`: its folder of images, its collections, its output."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click
import pytest
from rich.console import Console

from services.cli.index.output import shown_progress
from services.cli.options import ImagesFolder
from services.cli.up_screen import LogScreen, Served, TerminalScreen
from services.local import first_query, process_manager, running_up
from services.local.source import Source, source_of
from services.local.up import LocalSettings
from services.searcher.build.journal import FailedImage
from services.searcher.progress import NoProgress, ReportedProgress
from services.shared.errors import BuildInProgress, InvalidSettings
from services.shared.volume.build_progress import BuildProgress
from services.shared.volume.volume import Volume
from tests.support.clock import Clock
from tests.support.volume import items, publish_version, unit_vectors


@pytest.mark.parametrize("given", ["~/Pictures", "$HOME/Pictures", "${HOME}/Pictures"])
def test_a_folder_may_be_named_by_home(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command expands ~ and $HOME where no shell did."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "Pictures").mkdir()
    assert ImagesFolder().convert(given, None, None) == tmp_path / "Pictures"


def test_a_real_name_with_a_tilde_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is named ~ takes precedence over the home folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~").mkdir()
    assert ImagesFolder().convert("~", None, None) == Path("~")
    with pytest.raises(click.BadParameter, match="does not exist"):
        ImagesFolder().convert("~/none", None, None)


def _sample(root: Path) -> None:
    """Publish an index of the drawn sample, as a first `up` does."""
    drawn = root / ".sample" / "sample"
    publish_version(Volume(root), "sample", unit_vectors(2), items(2), images_root=drawn)


def _serving(root: Path, source: Source) -> LocalSettings:
    return LocalSettings.read(root, None, admin_port=1).serving(source, quiet=True)


def test_the_given_collection_is_the_default_and_hides_the_sample(tmp_path: Path) -> None:
    """After `make run` and `make run IMAGES=...`, a query without a name searches the images."""
    _sample(tmp_path)
    own = _serving(tmp_path, source_of(tmp_path, tmp_path / "Pictures", None))
    assert own.upload.default_collection == "pictures"
    assert own.upload.hidden == {"sample"}
    drawn = _serving(tmp_path, source_of(tmp_path, None, None))
    assert drawn.upload.default_collection == "sample"
    assert drawn.upload.hidden == set()


def test_an_own_collection_called_sample_is_not_hidden(tmp_path: Path) -> None:
    """Only the drawn sample is hidden."""
    publish_version(Volume(tmp_path), "sample", unit_vectors(2), items(2))
    own = _serving(tmp_path, source_of(tmp_path, tmp_path / "Pictures", None))
    assert own.upload.hidden == set()


def test_what_the_environment_sets_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A default collection and a log level from the environment override those of `up`."""
    monkeypatch.setenv("SIMILE_UPLOAD_DEFAULT_COLLECTION", "birds")
    monkeypatch.setenv("SIMILE_LOG_LEVEL", "debug")
    settings = _serving(tmp_path, source_of(tmp_path, tmp_path / "Pictures", None))
    assert settings.upload.default_collection == "birds"
    assert (settings.shared.log_level, settings.shared.admin_port) == ("debug", 1)


def test_a_name_that_can_be_none_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """The refusal is an error of the settings."""
    with pytest.raises(InvalidSettings, match="can't be a collection's name"):
        source_of(tmp_path, None, "No Name!")


def test_the_sample_is_drawn_once_and_by_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build lock of the collection makes a second `up` fail with BuildInProgress."""
    calls: list[Path] = []

    def draw(folder: Path, **_: object) -> None:
        with pytest.raises(BuildInProgress):
            replace(source).draw(Volume(tmp_path), NoProgress())
        folder.mkdir(parents=True)
        calls.append(folder)

    monkeypatch.setattr("services.local.sample.draw_sample", draw)
    source = source_of(tmp_path, None, None)
    source.draw(Volume(tmp_path), NoProgress())
    source.draw(Volume(tmp_path), NoProgress())
    assert calls == [tmp_path / ".sample" / "sample"]


def test_top_finds_the_ports_while_up_runs(tmp_path: Path) -> None:
    """The note is removed when its process ends, and the note of a dead process is ignored."""
    assert running_up.admin_urls(tmp_path) == []
    with running_up.noted(tmp_path, ["http://127.0.0.1:1"]):
        assert running_up.admin_urls(tmp_path) == ["http://127.0.0.1:1"]
        note = tmp_path / ".up.json"
        dead = {**json.loads(note.read_text()), "pid": 2**22 + 1}
        note.write_text(json.dumps(dead))
        assert running_up.admin_urls(tmp_path) == []
    assert note.exists()  # the note belongs to another process now
    assert os.getpid() != dead["pid"]


def test_a_volume_that_is_read_only_has_no_note(tmp_path: Path) -> None:
    """`up` serves without the note."""
    (tmp_path / "file").write_text("")
    with running_up.noted(tmp_path / "file", ["http://127.0.0.1:1"]):
        assert running_up.admin_urls(tmp_path / "file") == []


async def test_a_late_first_answer_is_reported_with_its_reason(unused_tcp_port: int) -> None:
    """The wait calls `report` once it is late, with the latest refusal."""

    class Reported(Exception):
        """Ends the wait from within the report."""

    def report(refusal: str) -> None:
        raise Reported(refusal)

    with pytest.raises(Reported, match="Cannot connect"):
        await first_query.until_answered(
            f"http://127.0.0.1:{unused_tcp_port}", "birds", report, late_seconds=0.0
        )


def test_progress_is_reported_at_intervals() -> None:
    """Progress is reported at most once in ten seconds, with the counts of that moment."""
    clock, said = Clock(), list[BuildProgress]()
    progress = ReportedProgress(said.append, clock)
    progress.begin("embedding", 100)
    for _ in range(50):
        progress.advance()
    assert said == []
    clock.now += 10
    progress.advance()
    progress.advance()
    clock.now += 10
    progress.advance(failed=True)
    assert [(one.done, one.failed) for one in said] == [(51, 0), (53, 1)]


def test_a_build_in_a_pipe_reports_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A build without a terminal prints lines instead of a bar."""
    with shown_progress(every_seconds=0.0) as progress:
        progress.begin("embedding", 4)
        progress.advance()
    assert "index build: 1 of 4 images" in capsys.readouterr().err.splitlines()


FAILURES = tuple(FailedImage(f"{number:02}.txt", "c", "no image") for number in range(11))


def _screen() -> tuple[TerminalScreen, io.StringIO]:
    written = io.StringIO()
    return TerminalScreen(Console(file=written, width=40), bars=True), written


def test_the_block_names_ten_files_and_counts_the_rest() -> None:
    """Each line is whole on a narrow terminal."""
    screen, written = _screen()
    screen.ready("http://127.0.0.1:8080", Served("birds", 1, FAILURES))
    lines = written.getvalue().splitlines()
    assert "ready http://127.0.0.1:8080" in lines
    assert "  collection  birds: 1 image" in lines
    assert "              09.txt: no image" in lines
    assert "              and 1 more" in lines
    assert not any("10.txt" in line for line in lines)


def test_foreign_names_steer_no_terminal() -> None:
    """Escape codes and markup in a file's name are shown as text."""
    screen, written = _screen()
    wild = FailedImage("\x1b[2J[bold]x", "c", "no image")
    screen.ready("http://127.0.0.1:8080", Served("birds", 5, (wild,)))
    assert "\x1b" not in written.getvalue()
    assert "[bold]x" in written.getvalue()


@pytest.mark.parametrize(
    ("changed", "words"), [(True, "up to date again"), (False, "nothing has changed")]
)
def test_a_refresh_is_one_line(*, changed: bool, words: str) -> None:
    """The line follows the comparison with the folder."""
    screen, written = _screen()
    screen.refreshed(Served("birds", 5, (), changed=changed))
    assert words in written.getvalue()
    assert len(written.getvalue().splitlines()) == 1


def test_scripts_get_the_line_that_they_wait_for(capsys: pytest.CaptureFixture[str]) -> None:
    """`ready <url>` has a line of its own, also when images failed."""
    LogScreen().ready("http://127.0.0.1:8080", Served("birds", 5, FAILURES))
    assert "ready http://127.0.0.1:8080" in capsys.readouterr().out.splitlines()


def test_children_inherit_settings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt variable is not passed on, so that only the parent reports it."""
    monkeypatch.setenv("SIMILE_UPLAOD_PORT", "1")
    monkeypatch.setenv("SIMILE_UPLOAD_K", "")
    inherited: Mapping[str, str] = process_manager.inherited_environment()
    assert "SIMILE_UPLAOD_PORT" not in inherited
    assert "PATH" in inherited

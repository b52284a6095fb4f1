"""Folders behind `simile up`: whose collection it is, and what changes while it runs."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import watchfiles
from click.testing import CliRunner
from rich.console import Console

from services.cli.main import main
from services.cli.options import folder_settings
from services.cli.up_screen import LogScreen, Served, TerminalScreen
from services.local import folder_watch
from services.local.index_refresher import IndexBuild, IndexRefresher
from services.local.source import source_of
from services.searcher.build.build_metrics import BuildMetrics
from services.searcher.build.vanished import Vanished
from services.searcher.settings import IndexSettings
from services.shared.errors import MissingExtra, OtherFolder
from services.shared.settings import load
from services.shared.telemetry import Telemetry
from services.shared.volume.volume import Volume
from tests.support.build_site import NAME, Site
from tests.support.volume import items, publish_version, unit_vectors


def _published(root: Path, name: str, folder: Path) -> None:
    publish_version(Volume(root), name, unit_vectors(2), items(2), images_root=folder)


def test_another_folder_of_the_same_name_is_refused(tmp_path: Path) -> None:
    """The collection of d1/Pictures is not replaced by d2/Pictures: the error names both ways."""
    first, second = tmp_path / "d1" / "Pictures", tmp_path / "d2" / "Pictures"
    _published(tmp_path, "pictures", first)
    assert source_of(tmp_path, first, None).collection == "pictures"
    with pytest.raises(OtherFolder) as raised:
        source_of(tmp_path, second, None)
    said = str(raised.value)
    assert f"holds the images of {first}, not of {second}" in said
    assert "--collection d2-pictures" in said
    assert "--collection pictures" in said
    assert source_of(tmp_path, second, "d2-pictures").collection == "d2-pictures"
    assert source_of(tmp_path, second, "pictures").folder == second


def test_the_sample_replaces_no_own_collection(tmp_path: Path) -> None:
    """A folder called sample has been built before `make run` without IMAGES."""
    _published(tmp_path, "sample", tmp_path / "sample")
    with pytest.raises(OtherFolder):
        source_of(tmp_path, None, None)


def test_a_build_of_another_folder_ends_with_one_line(tmp_path: Path) -> None:
    """Exit code and error of a wrong option, before anything is started."""
    _published(tmp_path, "pictures", tmp_path / "d1" / "Pictures")
    other = tmp_path / "d2" / "Pictures"
    other.mkdir(parents=True)
    done = CliRunner().invoke(main, ["index", "build", str(other), "--root", str(tmp_path)])
    assert done.exit_code == 78
    assert "(other_folder)" in done.output


def test_flags_are_settings() -> None:
    """A flag goes before the environment; without one the environment counts."""
    given = folder_settings(follow_symlinks=True, allow_missing=True)
    settings = load(IndexSettings, **given)
    assert (settings.follow_symlinks, settings.max_missing) == (True, 1.0)
    assert load(IndexSettings, **folder_settings(follow_symlinks=False, allow_missing=False)) == (
        IndexSettings()
    )


def test_what_vanished_is_shown() -> None:
    """The number, the first names, and how many more."""
    written = io.StringIO()
    screen = TerminalScreen(Console(file=written, width=40), bars=False)
    lost = Vanished(count=3, total=40, first=("a.jpg", "b.jpg"))
    screen.refreshed(Served("birds", 37, (), changed=True, vanished=lost))
    assert "  missing     3 images no longer there:" in written.getvalue().splitlines()
    assert "and 1 more" in written.getvalue()


class _Screen(LogScreen):
    """Remembers what a refresher reports."""

    def __init__(self) -> None:
        super().__init__()
        self.warned = asyncio.Queue[str]()
        self.reported = asyncio.Queue[Served]()

    def warn(self, text: str, action: str) -> None:
        """Remember a warning."""
        del action
        self.warned.put_nowait(text)

    def refreshed(self, served: Served) -> None:
        """Remember a report."""
        self.reported.put_nowait(served)


async def test_changes_are_indexed_while_up_runs(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each change a version is published; a change that stops a build is a warning."""
    changed = asyncio.Queue[None]()

    async def changes(folder: Path) -> AsyncIterator[None]:
        assert folder == site.folder
        while True:
            await changed.get()
            yield

    async def at_once(*_: object, **__: object) -> None:
        return

    monkeypatch.setattr("services.local.first_query.until_answered", at_once)
    monkeypatch.setattr("services.local.first_query.until_reachable", at_once)
    await site.build()
    screen = _Screen()
    refresher = IndexRefresher(_work(site), screen, changes)
    running = asyncio.create_task(refresher.refresh("http://nowhere"))
    try:
        site.draw("new.jpg", 50)
        changed.put_nowait(None)
        served = await screen.reported.get()
        while served.count != 4:
            served = await screen.reported.get()
        for file in (site.folder / "red").iterdir():
            file.unlink()
        (site.folder / "new.jpg").unlink()
        changed.put_nowait(None)
        assert "2 of 4 images are no longer there" in await screen.warned.get()
        site.draw("red/one.jpg", 1)
        changed.put_nowait(None)
        assert (await screen.reported.get()).count == 3
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _work(site: Site) -> IndexBuild:
    settings = site.shared()
    source = source_of(site.volume.root, site.folder, NAME)
    return IndexBuild(
        settings, site.settings, site.broker, source, BuildMetrics(Telemetry().registry)
    )


async def test_files_of_the_folder_are_noticed(tmp_path: Path) -> None:
    """A new picture at any depth is a change; hidden files, such as a volume's, are none."""
    (tmp_path / "deep").mkdir()
    watching = folder_watch.changes(tmp_path)
    first = asyncio.create_task(anext(watching))
    # The watch begins in a thread: files are written until one is noticed.
    number = 0
    while not first.done():
        (tmp_path / ".hidden").write_text(str(number))
        (tmp_path / "deep" / f"{number}.jpg").write_text("")
        number += 1
        await asyncio.wait({first}, timeout=1.5)
    await first
    await watching.aclose()


@pytest.mark.parametrize(
    ("name", "counts"),
    [("a.jpg", True), (".simileignore", True), (".x/a.jpg", False), ("a/.b.jpg", False)],
)
async def test_hidden_files_are_no_change(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, counts: bool
) -> None:
    """The filter that the library gets lets through what a build would read."""
    options = await _asked(tmp_path, monkeypatch, [])
    assert options[0]["watch_filter"](watchfiles.Change.added, str(tmp_path / name)) == counts


async def test_a_system_that_reports_nothing_is_asked_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More folders than inotify watches: the folder is polled."""
    options = await _asked(tmp_path, monkeypatch, [OSError("OS file watch limit reached")])
    assert [one["force_polling"] for one in options] == [None, True]


async def _asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, errors: Sequence[OSError]
) -> list[dict[str, Any]]:
    """Return the options of each watch until a watch yields; the first watches raise `errors`."""
    options: list[dict[str, Any]] = []

    async def awatch(_: Path, **given: Any) -> AsyncIterator[set[object]]:
        options.append(given)
        if len(options) <= len(errors):
            raise errors[len(options) - 1]
        yield set()

    monkeypatch.setattr(watchfiles, "awatch", awatch)
    watching = folder_watch.changes(folder, retry_seconds=0)
    await anext(watching)
    await watching.aclose()
    return options


def test_a_missing_watcher_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is started."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"simile-search\[watch\]"):
        folder_watch.require_library()

"""Tests the terminal output of `simile up`."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from services.local.sample import draw_sample
from services.shared.lifecycle import ExitCode
from tests.support.rabbitmq import Node
from tests.support.terminal import Terminal, up_on_terminal

IDLE_SECONDS = 5.0
PICTURES = 24


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw some pictures in folders, beside twelve files that are not images."""
    folder = tmp_path_factory.mktemp("terminal") / "Pictures"
    draw_sample(folder, per_class=PICTURES // 12)
    for number in range(12):
        (folder / f"note-{number:02}.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a volume that the tests of this module share, in order."""
    return tmp_path_factory.mktemp("root")


def _silent(terminal: Terminal) -> bool:
    """Return whether nothing is written for five seconds."""
    before = terminal.received
    terminal.read(IDLE_SECONDS)
    return terminal.received == before


def test_the_ready_block_stays_on_the_screen(root: Path, images: Path) -> None:
    """URL, collection, skipped files and how to stop are shown; then nothing; Ctrl-C ends it."""
    with up_on_terminal("--root", str(root), "--images", str(images)) as terminal:
        terminal.wait_for("open http://127.0.0.1:")
        terminal.wait_for("Ctrl-C")
        terminal.read(0.5)
        shown = terminal.text
        assert "ready http://127.0.0.1:" in shown
        assert f"pictures: {PICTURES} images" in shown
        assert "12 files" in shown
        assert "note-00.txt: the bytes are no image of" in shown
        assert "note-09.txt" in shown
        assert "note-10.txt" not in shown
        assert "and 2 more" in shown
        for noise in ("embedding", "reading", "asking", "[info", "action="):
            assert noise not in shown
        assert _silent(terminal)
        assert terminal.interrupt() == ExitCode.DRAINED
        assert "stopping" in terminal.text


def test_a_second_start_refreshes_without_garbling(root: Path, images: Path) -> None:
    """The start is ready at once from the existing index; changes of the folder are one line."""
    draw_sample(images / "more", per_class=1, seed=3)
    with up_on_terminal("--root", str(root), "--images", str(images)) as terminal:
        terminal.wait_for("Ctrl-C")
        terminal.wait_for(f"{PICTURES + 12} images")
        terminal.read(0.5)
        shown = terminal.text
        assert shown.count("ready http://") == 1
        assert "[info" not in shown
        assert _silent(terminal)


def test_verbose_shows_the_log(root: Path, images: Path) -> None:
    """With --verbose the log lines are shown, and the ready block as well."""
    with up_on_terminal("--root", str(root), "--images", str(images), "--verbose") as terminal:
        terminal.wait_for("Ctrl-C")
        assert "ready http://127.0.0.1:" in terminal.text
        assert "[info" in terminal.text


def test_processes_write_as_little(root: Path, images: Path, rabbitmq: Node) -> None:
    """Child processes write through the same screen: the ready block stays, then silence."""
    arguments = ["--root", str(root), "--images", str(images), "--collection", "others"]
    with up_on_terminal(*arguments, "--processes", "--amqp-url", rabbitmq.url) as terminal:
        terminal.wait_for("Ctrl-C")
        terminal.read(1.0)
        assert "ready http://127.0.0.1:" in terminal.text
        assert "collection  others: " in terminal.text
        assert "[info" not in terminal.text
        assert _silent(terminal)
        assert terminal.interrupt() == ExitCode.DRAINED


@pytest.mark.parametrize("until", ["starting Simile", "open http://"])
def test_ctrl_c_works_during_the_start(until: str, tmp_path: Path) -> None:
    """Ctrl-C works while libraries are imported, and while the sample is drawn or embedded."""
    with up_on_terminal("--root", str(tmp_path)) as terminal:
        terminal.wait_for(until)
        assert terminal.interrupt() in {ExitCode.DRAINED, ExitCode.FAILED}
        assert "Traceback" not in terminal.text


def test_ctrl_c_works_while_rabbitmq_is_away(tmp_path: Path, images: Path) -> None:
    """With no broker at the address the first Ctrl-C is enough."""
    away = ["--processes", "--amqp-url", "amqp://guest:guest@127.0.0.1:9/"]
    with up_on_terminal("--root", str(tmp_path), "--images", str(images), *away) as terminal:
        terminal.wait_for("connecting to RabbitMQ at 127.0.0.1:9")
        terminal.wait_for("broker away")
        assert "aiormq" not in terminal.text
        assert terminal.interrupt() == ExitCode.DRAINED


def test_an_error_is_one_line(tmp_path: Path) -> None:
    """A folder without images is an error of one line with its code, without traceback."""
    empty = tmp_path / "empty"
    empty.mkdir()
    with up_on_terminal("--root", str(tmp_path / "root"), "--images", str(empty)) as terminal:
        assert terminal.end() == ExitCode.FAILED
        assert "build_failed" in terminal.text.splitlines()[-1]
        assert "Traceback" not in terminal.text


def test_sigterm_works_like_ctrl_c(root: Path, images: Path) -> None:
    """SIGTERM, as a service manager sends it, ends `up` the same way."""
    with up_on_terminal("--root", str(root), "--images", str(images)) as terminal:
        terminal.wait_for("Ctrl-C")
        terminal.popen.send_signal(signal.SIGTERM)
        assert terminal.end() == ExitCode.DRAINED

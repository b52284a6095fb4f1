"""`simile up` as a person at a terminal sees it."""

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
    """Some pictures in folders, and twelve files that are none."""
    folder = tmp_path_factory.mktemp("terminal") / "Pictures"
    draw_sample(folder, per_class=PICTURES // 12)
    for number in range(12):
        (folder / f"note-{number:02}.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume that the tests of this module share, in their order."""
    return tmp_path_factory.mktemp("root")


def _silent(terminal: Terminal) -> bool:
    """Whether nothing at all is written for five seconds."""
    before = terminal.received
    terminal.read(IDLE_SECONDS)
    return terminal.received == before


def test_the_ready_block_stays_on_the_screen(root: Path, images: Path) -> None:
    """URL, collection, what was left out and how to stop; then not a byte; Ctrl-C ends it."""
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
    """Ready at once from the index that is there; what changed meanwhile is one line."""
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
    """With --verbose the log lines come, too, and the ready block all the same."""
    with up_on_terminal("--root", str(root), "--images", str(images), "--verbose") as terminal:
        terminal.wait_for("Ctrl-C")
        assert "ready http://127.0.0.1:" in terminal.text
        assert "[info" in terminal.text


def test_processes_are_as_calm(root: Path, images: Path, rabbitmq: Node) -> None:
    """Child processes write through the same screen: ready stays, and silence follows."""
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
def test_ctrl_c_is_obeyed_while_it_starts(until: str, tmp_path: Path) -> None:
    """While libraries are imported, and while the sample is drawn or embedded."""
    with up_on_terminal("--root", str(tmp_path)) as terminal:
        terminal.wait_for(until)
        assert terminal.interrupt() in {ExitCode.DRAINED, ExitCode.FAILED}
        assert "Traceback" not in terminal.text


def test_ctrl_c_is_obeyed_while_rabbitmq_is_away(tmp_path: Path, images: Path) -> None:
    """Nobody listens at the address: the first Ctrl-C is enough."""
    away = ["--processes", "--amqp-url", "amqp://guest:guest@127.0.0.1:9/"]
    with up_on_terminal("--root", str(tmp_path), "--images", str(images), *away) as terminal:
        terminal.wait_for("connecting to RabbitMQ at 127.0.0.1:9")
        terminal.wait_for("broker away")
        assert "aiormq" not in terminal.text
        assert terminal.interrupt() == ExitCode.DRAINED


def test_an_error_is_one_line(tmp_path: Path) -> None:
    """A folder without images: what is wrong, and its code; no traceback."""
    empty = tmp_path / "empty"
    empty.mkdir()
    with up_on_terminal("--root", str(tmp_path / "root"), "--images", str(empty)) as terminal:
        assert terminal.end() == ExitCode.FAILED
        assert "build_failed" in terminal.text.splitlines()[-1]
        assert "Traceback" not in terminal.text


def test_sigterm_is_as_good_as_ctrl_c(root: Path, images: Path) -> None:
    """As a service manager ends it."""
    with up_on_terminal("--root", str(root), "--images", str(images)) as terminal:
        terminal.wait_for("Ctrl-C")
        terminal.popen.send_signal(signal.SIGTERM)
        assert terminal.end() == ExitCode.DRAINED

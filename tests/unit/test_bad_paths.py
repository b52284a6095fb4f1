"""Every command reports impossible paths and names in one line, never with a traceback."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from services.cli.main import main
from services.shared.lifecycle import ExitCode
from services.shared.volume.volume import Volume
from tests.support.full_disk import full_disk
from tests.support.volume import items, publish_version, unit_vectors

_USAGE = 2
"""The exit code of click for an invalid argument."""

_OF_A_COLLECTION = [
    ["index", "activate", "{name}", "20200101T000000Z-00000000"],
    ["index", "rollback", "{name}"],
    ["index", "verify", "{name}"],
    ["index", "verify", "{name}", "--all"],
    ["index", "prune", "{name}"],
    ["index", "explain", "{name}"],
    ["index", "duplicates", "{name}"],
    ["index", "evaluate", "{name}"],
    ["index", "export", "{name}", "exported"],
    ["index", "delete", "{name}", "--yes"],
]
_OF_A_ROOT = [*_OF_A_COLLECTION, ["index", "list"], ["index", "build", "{folder}"],
              ["index", "copy", "{folder}"]]  # fmt: skip


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Volume:
    """Publish three versions of `birds` in `root`, the last one active, and run in its parent."""
    monkeypatch.chdir(tmp_path)
    volume = Volume(tmp_path / "root")
    for number in range(3):
        publish_version(
            volume, "birds", unit_vectors(30), items(30), number=number, method="reduced"
        )
    return volume


def _run(*arguments: str) -> Result:
    return CliRunner(env={"TERM": "dumb"}).invoke(main, arguments)


def _ends_by_name(result: Result, code: str, exit_code: int = ExitCode.FAILED) -> None:
    """Check that the command ended with one line of error that ends in the error's code."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == exit_code
    (line,) = result.stderr.splitlines()
    assert line.startswith("simile: ")
    assert line.endswith(f"({code})")


def _is_refused(result: Result, words: str) -> None:
    """Check that the command was refused for an argument, before it did anything."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == _USAGE
    assert words in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("command", _OF_A_ROOT, ids=" ".join)
@pytest.mark.parametrize("place", ["file", "file/below/it"])
def test_a_root_that_is_a_file_is_named(tmp_path: Path, command: list[str], place: str) -> None:
    """The error names the file, instead of a missing collection or a damaged index."""
    (tmp_path / "file").touch()
    (tmp_path / "images").mkdir()
    named = [part.format(name="birds", folder=tmp_path / "images") for part in command]
    result = _run(*named, "--root", str(tmp_path / place))
    _ends_by_name(result, "invalid_settings", ExitCode.INVALID_SETTINGS)
    assert f"{tmp_path / 'file'} is no folder" in result.stderr


@pytest.mark.parametrize("command", _OF_A_COLLECTION, ids=" ".join)
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("fish", "unknown_collection"),
        ("No [b]Good[/b]", "malformed_request"),
        ("", "malformed_request"),
        ("../root/birds", "malformed_request"),
        ("n" * 300, "malformed_request"),
        ("a\0b", "malformed_request"),
    ],
)
def test_a_collection_that_is_not_there_is_named(
    volume: Volume, command: list[str], name: str, code: str
) -> None:
    """An unknown name and impossible names each get their error's code."""
    named = [part.format(name=name) for part in command]
    _ends_by_name(_run(*named, "--root", str(volume.root)), code)


@pytest.mark.parametrize("command", _OF_A_COLLECTION, ids=" ".join)
def test_a_root_without_anything_has_no_collection(tmp_path: Path, command: list[str]) -> None:
    """A root that does not exist yet counts as empty."""
    named = [part.format(name="birds") for part in command]
    _ends_by_name(_run(*named, "--root", str(tmp_path / "new")), "unknown_collection")
    listed = _run("index", "list", "--root", str(tmp_path / "new"))
    assert listed.exit_code == 0
    assert "simile index build" in listed.stdout


_PICTURES = [
    ["index", "evaluate", "birds", "-k", "3", "--sheet"],
    ["index", "duplicates", "birds", "--distance", "1", "--sheet"],
    ["index", "explain", "birds", "--plot"],
]


@pytest.mark.parametrize("command", _PICTURES, ids=" ".join)
@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("missing/x.png", "no folder missing"),
        ("root/birds/ACTIVE/x.png", "no folder"),
        ("x.nope", "does not end in .png"),
        ("x", "does not end in .png"),
        ("root", "is a directory"),
    ],
)
def test_a_picture_that_can_not_be_is_refused_first(
    volume: Volume, command: list[str], out: str, words: str
) -> None:
    """The refusal comes before the work, which may take hours."""
    _is_refused(_run(*command, out, "--root", str(volume.root)), words)


@pytest.mark.parametrize("command", _PICTURES, ids=" ".join)
def test_a_picture_that_finds_no_room_is_named(volume: Volume, command: list[str]) -> None:
    """The command prints its findings, and reports that the picture can't be written."""
    with full_disk():
        result = _run(*command, "x.png", "--root", str(volume.root))
    lines = result.stderr.splitlines()
    assert lines[-1].startswith("simile: ")
    assert lines[-1].endswith("x.png can't be written: File too large (file_unusable)")
    assert "Traceback" not in result.stderr
    assert result.stdout


@pytest.mark.parametrize(
    "command", [["index", "activate", "birds", "{old}"], ["index", "rollback", "birds"]]
)
def test_a_volume_without_room_keeps_its_active_version(volume: Volume, command: list[str]) -> None:
    """The active version remains active when the disk is full."""
    named = [part.format(old=volume.versions("birds")[0]) for part in command]
    active = volume.active("birds")
    with full_disk():
        result = _run(*named, "--root", str(volume.root))
    _ends_by_name(result, "file_unusable")
    assert "File too large" in result.stderr
    assert volume.active("birds") == active


@pytest.mark.parametrize(
    "command", [["index", "activate", "birds", "{old}"], ["index", "rollback", "birds"]]
)
def test_a_volume_that_can_not_be_written_is_named(volume: Volume, command: list[str]) -> None:
    """The error names the file that is in the way."""
    named = [part.format(old=volume.versions("birds")[0]) for part in command]
    in_the_way = volume.home("birds") / f"ACTIVE.{os.getpid()}"
    in_the_way.mkdir()
    result = _run(*named, "--root", str(volume.root))
    _ends_by_name(result, "file_unusable")
    assert f"{in_the_way} can't be used: Is a directory" in result.stderr


@pytest.mark.parametrize("command", [["evaluate", "birds"], ["index", "duplicates", "birds"]])
@pytest.mark.parametrize("file", ["items.sqlite", "vectors.f32"])
def test_a_damaged_index_is_named(volume: Volume, command: list[str], file: str) -> None:
    """The error is `index_corrupt`, instead of an error of SQLite or wrong figures."""
    damaged = volume.directory("birds", volume.active("birds")) / file
    damaged.chmod(0o644)
    content = damaged.read_bytes()
    damaged.write_bytes(bytes([*content[:100], *(255 - one for one in content[100:])]))
    result = _run(*command, "--root", str(volume.root))
    assert result.exit_code == ExitCode.FAILED
    assert result.stderr.splitlines()[-1].endswith("(index_corrupt)")
    assert "Traceback" not in result.stderr


def test_pruning_what_can_not_be_removed_is_named(volume: Volume) -> None:
    """The error shows the version's whole path."""
    oldest = volume.directory("birds", volume.versions("birds")[0])
    for file in oldest.iterdir():
        file.rename(oldest.with_name(file.name))
    oldest.rmdir()
    oldest.symlink_to(volume.directory("birds", volume.active("birds")))
    result = _run("index", "prune", "birds", "--keep", "0", "--min-age", "0", "--root",
                  str(volume.root))  # fmt: skip
    _ends_by_name(result, "file_unusable")
    assert f"{oldest} can't be used" in result.stderr


@pytest.mark.parametrize("command", [["index", "build", "."], ["up", "--images", "."]])
def test_a_name_for_a_new_collection_is_checked_first(volume: Volume, command: list[str]) -> None:
    """The name is refused before anything starts or waits."""
    ended = subprocess.run(
        [sys.executable, "-m", "services", *command, "--collection", "No [b]Good[/b]",
         "--root", str(volume.root)],
        check=False, capture_output=True, text=True, timeout=60,
        env={**os.environ, "SIMILE_LOG_FORMAT": "json"},
    )  # fmt: skip
    assert ended.returncode == ExitCode.INVALID_SETTINGS
    (line,) = (ended.stdout + ended.stderr).splitlines()
    assert "'No [b]Good[/b]' can't be a collection's name" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bench", "--images", "root", "--json", "missing/x"], "no folder missing"),
        (["bench", "--images", "root", "--report", "root/birds/ACTIVE/x"], "no folder"),
        (["quarantine", "show", "x", "--image", "missing/x"], "no folder missing"),
        (["query", "missing.jpg"], "is no file, no folder, and no URL"),
        (["query", "-", "-"], "can be given once"),
        (["bench", "--images", "missing"], "does not exist"),
        (["keys", "check", "missing"], "does not exist"),
        (["keys", "check", "root"], "is a directory"),
        (["index", "build", "missing"], "does not exist"),
        (["index", "copy", "missing"], "does not exist"),
        (["up", "--images", "missing"], "does not exist"),
        (["up", "--images", "root/birds/ACTIVE"], "is a file"),
    ],
    ids=str,
)
def test_a_path_that_is_not_there_is_refused(
    volume: Volume, arguments: list[str], words: str
) -> None:
    """The path is refused before anything starts."""
    assert volume
    _is_refused(_run(*arguments), words)


@pytest.mark.parametrize("command", [["query", "root"], ["bench", "--images", "root"]])
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "begins with http:// or https://"),
        ("ftp://a", "begins with http:// or https://"),
        ("localhost:8080", "begins with http:// or https://"),
        ("http://[", "is no URL"),
        ("http://localhost:99999", "is no URL"),
    ],
)
def test_an_address_that_is_no_url_is_refused(
    volume: Volume, command: list[str], url: str, words: str
) -> None:
    """The option says how a URL begins, or why this one is none."""
    assert volume
    _is_refused(_run(*command, "--url", url), words)


def test_a_simile_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A port without a listener counts as unreachable, as does a host that is no name."""
    image = tmp_path / "caf\udce9 [b].jpg"
    image.write_bytes(b"x")
    for url in ("http://127.0.0.1:1", "http://\udcff"):
        _ends_by_name(_run("query", str(image), "--url", url), "unreachable")


def test_a_file_that_can_not_be_read_is_named() -> None:
    """A read error of an open file is reported: /proc/self/mem opens, but can't be read."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        result = _run("query", "/proc/self/mem", "--url", url)
    _ends_by_name(result, "file_unusable")
    assert "can't be read: Input/output error" in result.stderr


def test_labels_and_paths_are_shown_as_they_are(tmp_path: Path) -> None:
    """Tables and sheets show square brackets and control characters, and interpret neither."""
    volume = Volume(tmp_path / "root")
    labels = ["a [/b]", "c [red]", "[link=x]\x1b[2J", "line\nend", "\u202egnp"]
    listed = [
        dataclasses.replace(item, label=labels[item.position % 5], path=f"[/i]{item.position}.jpg")
        for item in items(30)
    ]
    publish_version(volume, "birds", unit_vectors(30), listed, method="reduced")
    root = ["--root", str(volume.root)]
    sheet = str(tmp_path / "sheet.png")
    judged = _run("evaluate", "birds", "-k", "3", "--sheet", sheet, *root)
    assert judged.exit_code == 0, judged.output
    for shown in ("a [/b]", "c [red]", "[link=x]\\x1b[2J", "\\u202egnp"):
        assert shown in judged.stdout
    grouped = _run("index", "duplicates", "birds", "--distance", "1.2", "--sheet", sheet, *root)
    assert grouped.exit_code == 0, grouped.output
    assert "[/i]0.jpg" in grouped.stdout
    assert "\x1b[2J" not in judged.output + grouped.output
    as_json = _run("index", "duplicates", "birds", "--distance", "1.2", "--json", *root)
    assert "a [/b]" in json.loads(as_json.stdout)[0]["labels"]

"""All commands: examples that parse, JSON beside every table, completion, no option for nothing."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from services.cli.main import main
from services.shared.volume.volume import Volume
from tests.support.volume import items, publish_version, unit_vectors
from tools import reference

_Path = tuple[str, ...]


def _commands(group: click.Group, path: _Path = ()) -> Iterator[tuple[_Path, click.Command]]:
    for name, command in sorted(group.commands.items()):
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))


COMMANDS = dict(_commands(main))
LEAVES = {path: one for path, one in COMMANDS.items() if not isinstance(one, click.Group)}


@pytest.fixture
def volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Volume:
    """Two versions of `pets`; the test runs in an empty folder beside the volume."""
    volume = Volume(tmp_path / "root")
    vectors = unit_vectors(30)
    vectors[7] = vectors[3]
    for number in range(2):
        publish_version(volume, "pets", vectors, items(30), number=number, method="reduced")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("SIMILE_ROOT", str(volume.root))
    return volume


def _run(*arguments: str, **options: Any) -> Result:
    runner = CliRunner(env={"COLUMNS": "80", "TERM": "dumb"})
    return runner.invoke(main, arguments, prog_name="simile", **options)


def _pieces(line: str) -> Iterator[list[str]]:
    """Yield the arguments of each `simile` in a line of shell, without redirections."""
    # A shell's completion is the subject of tests of its own.
    for part in line.split(" | ") if "_SIMILE_COMPLETE" not in line else ():
        words = shlex.split(part, comments=True)
        while words and "=" in words[0]:
            words = words[1:]
        if words and Path(words[0]).name == "simile":
            ends = [words.index(sign) for sign in (">", ">>", "&", "&&") if sign in words]
            yield words[1 : min(ends, default=len(words))]


@pytest.fixture
def _parsed_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands parse their arguments and do nothing; the files that examples name exist."""
    for command in LEAVES.values():
        monkeypatch.setattr(command, "callback", lambda *_, **__: None)
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "pets", "d"):
        (tmp_path / folder).mkdir()
    for file in ("cat.jpg", "dog.jpg", "photo.jpg", "keys.txt", "vector.json"):
        (tmp_path / file).write_bytes(b"x")


@pytest.mark.usefixtures("_parsed_only")
@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_examples_that_parse(path: _Path, tmp_path: Path) -> None:
    """`--help` ends with them; each is a call of this command, or of one of the group's."""
    shown = _run(*path, "--help").output
    _, _, examples = shown.partition("Examples:\n")
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    assert lines
    for line in lines:
        (arguments,) = _pieces(line.replace("/mnt/indexes", str(tmp_path)))
        # A command that also has a name outside its group shows the one in the group.
        assert path in {tuple(arguments[: len(path)]), tuple(arguments[1 : 1 + len(path)])}
        result = _run(*arguments)
        assert result.exit_code == 0, result.output


@pytest.mark.usefixtures("_parsed_only")
def test_every_command_of_the_page_parses(tmp_path: Path) -> None:
    """The lines of docs/cli.md that call `simile`, outside the usage lines, are calls."""
    page = (reference.DOCS / "cli.md").read_text(encoding="utf-8")
    calls = [
        arguments
        for block in re.findall(r"^```\w*\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        for line in block.replace("/mnt/indexes", str(tmp_path)).splitlines()
        if "[OPTIONS]" not in line
        for arguments in _pieces(line)
    ]
    assert len(calls) > 30
    for arguments in calls:
        result = _run(*arguments)
        assert result.exit_code == 0, result.output


_JSON: dict[_Path, list[str]] = {
    ("index", "list"): [],
    ("index", "explain"): ["pets"],
    ("index", "duplicates"): ["pets", "--distance", "0.01"],
    ("index", "evaluate"): ["pets", "-k", "3"],
    ("index", "prune"): ["pets", "--dry-run"],
    ("index", "verify"): ["pets", "--all"],
    ("keys", "check"): ["keys.txt"],
}
"""The commands that print tables of a volume or a file, with their arguments."""

_JSON_ELSEWHERE = {
    ("bench",): "tests/unit/bench/test_bench_command.py",
    ("evaluate",): "the same as index evaluate",
    ("export",): "the same as model export",
    ("model", "export"): "tests/unit/cli/test_model.py",
    ("quarantine", "list"): "tests/e2e/test_rabbitmq.py",
    ("quarantine", "show"): "tests/e2e/test_rabbitmq.py",
    ("query",): "tests/unit/upload/test_query_command.py",
    ("top",): "tests/unit/top/test_top_command.py",
}
_WITHOUT_LISTING = {
    ("embedder",), ("searcher",), ("upload",), ("up",), ("keys", "new"),
    ("quarantine", "drop"), ("quarantine", "replay"),
    *(("index", name) for name in
      ("activate", "build", "copy", "delete", "export", "rollback", "unpin")),
}  # fmt: skip


def test_every_command_that_lists_has_json() -> None:
    """A new command must be in one of the lists above."""
    listing = {*_JSON, *_JSON_ELSEWHERE}
    assert listing | _WITHOUT_LISTING == set(LEAVES)
    for path in listing:
        assert any("--json" in option.opts for option in LEAVES[path].params), path


@pytest.mark.parametrize("path", _JSON, ids=" ".join)
def test_json_is_all_that_is_printed(volume: Volume, path: _Path) -> None:
    """Standard output is one JSON value with what the table holds, and no file is written."""
    line = f"shop read sha256:{'0' * 64}\n"
    Path("keys.txt").write_text(line)
    result = _run(*path, *_JSON[path], "--json")
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout)
    assert printed
    assert "──" not in result.stdout
    assert {file.name for file in Path().iterdir()} == {"keys.txt"}
    assert "──" in _run(*path, *_JSON[path]).stdout or path == ("index", "verify")
    assert volume


def test_the_list_as_json_has_each_version(volume: Volume) -> None:
    """With its state, and the facts of the manifest."""
    rows = json.loads(_run("index", "list", "--json").stdout)
    assert [row["version"] for row in rows] == volume.versions("pets")
    assert [row["active"] for row in rows] == [False, True]
    assert {(row["collection"], row["count"], row["method"]) for row in rows} == {
        ("pets", 30, "reduced")
    }
    manifest = volume.directory("pets", volume.versions("pets")[0]) / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_text("{")
    broken, _ = json.loads(_run("index", "list", "--json").stdout)
    assert (broken["readable"], broken["count"]) == (False, None)


def test_a_sheet_that_is_asked_for_is_drawn_beside_json(volume: Volume) -> None:
    """The line about it goes to standard error."""
    assert volume
    for command in ("duplicates", "evaluate"):
        result = _run("index", command, "pets", "--json", "--sheet", f"{command}.png")
        json.loads(result.stdout)
        assert f"contact sheet: {command}.png" in result.stderr
        assert Path(f"{command}.png").stat().st_size


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("up --embedders 2", "--embedders has no effect without --processes"),
        ("up --searchers 1", "--searchers has no effect without --processes"),
        ("up --watch", "--watch has no effect without --images"),
        ("up --allow-missing", "--allow-missing has no effect without --images"),
        ("index build --follow-symlinks", "--follow-symlinks has no effect without FOLDER"),
        ("index verify pets 20260729T101112Z-0123abcd --all", "not both"),
        ("quarantine drop --all x", "or --all"),
    ],
)
def test_an_option_without_effect_is_refused(line: str, complaint: str) -> None:
    """Nothing that is given is silently ignored."""
    result = _run(*line.split())
    assert result.exit_code == 2
    assert complaint in result.stderr


def test_a_collection_is_deleted_after_a_yes(volume: Volume) -> None:
    """The question names the collection and its size; a no changes nothing."""
    refused = _run("index", "delete", "pets", input="n\n")
    assert "Delete pets (2 versions, 0 MB)?" in refused.stdout
    assert refused.exit_code != 0
    assert volume.collections() == ["pets"]
    assert _run("index", "delete", "pets", input="y\n").exit_code == 0
    assert list(volume.root.iterdir()) == []


def test_a_deletion_without_a_terminal_needs_yes(volume: Volume) -> None:
    """The error names the option when no server answers."""
    result = _run("index", "delete", "pets")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert volume.collections() == ["pets"]
    assert "deleted: pets" in _run("index", "delete", "pets", "--yes").stdout


def test_an_export_is_a_new_folder(volume: Volume) -> None:
    """The command names the version and the folder."""
    result = _run("index", "export", "pets", "out")
    assert result.stdout == f"exported: 30 items of pets {volume.active('pets')} to out\n"
    assert Path("out", "vectors.npy").is_file()


def _completed(words: str) -> list[str]:
    """Return what bash completes after these words, the last one unfinished."""
    variables = {
        "_SIMILE_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    result = _run(env=variables)
    return [line.partition(",")[2] for line in result.output.splitlines() if "," in line]


def test_a_shell_completes_commands_collections_and_versions(volume: Volume) -> None:
    """The collections and versions are those of the volume; hidden commands are not offered."""
    assert _completed("simile ind") == ["index"]
    assert _completed("simile e") == ["embedder", "evaluate"]
    assert _completed("simile index delete p") == ["pets"]
    assert _completed("simile index activate pets ") == volume.versions("pets")
    assert _completed(f"simile index evaluate --root {volume.root / 'none'} p") == []


def test_a_shell_gets_its_script() -> None:
    """The scripts that docs/cli.md names are printed for each shell."""
    for shell in ("bash", "zsh", "fish"):
        script = _run(env={"_SIMILE_COMPLETE": f"{shell}_source"}).output
        assert "_SIMILE_COMPLETE" in script

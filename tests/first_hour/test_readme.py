"""Tests README's commands, in README's order, in common shells."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from services.local.sample import draw_sample
from tests.first_hour.reader import BLOCK, commands, install, typed
from tests.support.running import simile_up

README: Final = Path(__file__).parents[2] / "README.md"
SECTIONS: Final = ("Ask it", "Is it any good?")
SHELLS: Final = ("sh", "zsh")
COMMANDS: Final = [line for section in SECTIONS for line in commands(README, section)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a reader's folder: with photographs, and the command in .venv."""
    folder = tmp_path_factory.mktemp("readme")
    draw_sample(folder / "Pictures", per_class=3)
    drawn = sorted((folder / "Pictures").glob("*/*.jpg"))
    for name, picture in zip(("photo", "one", "two"), drawn, strict=False):
        shutil.copy(picture, folder / f"{name}.jpg")
    install(folder / ".venv" / "bin")
    return folder


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """Run `make run`, then `make run IMAGES=~/Pictures` on the same volume, as README does."""
    root = ["--root", str(folder / "root")]
    with simile_up(folder / "first.log", *root):
        pass
    with simile_up(folder / "second.log", *root, "--images", str(folder / "Pictures")) as (url, _):
        yield url


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_works_as_it_is_printed(line: str, shell: str, url: str, folder: Path) -> None:
    """After both `make run` each command prints an answer of the API, or succeeds."""
    here = line.replace("http://127.0.0.1:8080", url)
    if "simile query" in line:
        here += f" --url {url}"
    printed = typed(shell, here, folder)
    if line.startswith("curl"):
        answer = json.loads(printed)
        assert "code" not in answer, answer
        assert answer.get("collection", "pictures") == "pictures"


def test_the_readme_has_the_commands() -> None:
    """The sections exist and hold the commands that newcomers copy."""
    assert sum(line.startswith("curl") for line in COMMANDS) >= 8
    assert any("simile query" in line for line in COMMANDS)
    assert any("simile index evaluate" in line for line in COMMANDS)


def test_no_command_carries_a_comment() -> None:
    """No command has a trailing `# comment`: an interactive zsh takes the words for arguments."""
    for block in BLOCK.findall(README.read_text().split("## On Kubernetes")[0]):
        assert "#" not in block


def test_only_the_own_collection_is_served(url: str, folder: Path) -> None:
    """The sample of the first `make run` is not served beside the own collection."""
    listed = json.loads(typed("sh", f"curl -s {url}/v1/collections", folder))
    assert [one["name"] for one in listed["collections"]] == ["pictures"]
    assert listed["default_collection"] == "pictures"


class TestMakeRun:
    """Tests `make run IMAGES=...` as in README, with a stand-in for the command."""

    @pytest.fixture
    def home(self, tmp_path: Path) -> Path:
        """Return a home with three folders, and a venv whose command prints the folder it gets."""
        for name in ("Pictures", "My Pictures", "It's $5"):
            (tmp_path / name).mkdir()
        command = tmp_path / "venv" / "bin" / "simile"
        command.parent.mkdir(parents=True)
        command.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(README.parent)!r})\n"
            "from services.cli.options import ImagesFolder\n"
            "print(ImagesFolder().convert(sys.argv[-1], None, None))\n"
        )
        command.chmod(0o755)
        (command.parent / "pip").touch()
        (tmp_path / "venv" / ".installed").touch()
        return tmp_path

    @pytest.mark.parametrize("shell", ["sh", "bash", "zsh"])
    @pytest.mark.parametrize(
        ("typed", "name"),
        [
            ("IMAGES=~/Pictures", "Pictures"),
            ("IMAGES='~/Pictures'", "Pictures"),
            ("IMAGES=$HOME/Pictures", "Pictures"),
            ("IMAGES='$HOME/Pictures'", "Pictures"),
            ("IMAGES=~/My\\ Pictures", "My Pictures"),
            ('IMAGES="$HOME/My Pictures"', "My Pictures"),
            ('IMAGES="$HOME/It\'s \\$5"', "It's $5"),
        ],
    )
    def test_a_folder_reaches_the_command(
        self, shell: str, typed: str, name: str, home: Path
    ) -> None:
        """Tilde, variable, space, quote and dollar reach the command as typed."""
        line = f"make --no-print-directory -s -C {README.parent} run VENV={home}/venv {typed}"
        done = subprocess.run(
            [shell, "-c", line], text=True, capture_output=True, timeout=60, check=False,
            env={**os.environ, "HOME": str(home), "MAKEFLAGS": ""},
        )  # fmt: skip
        assert done.stdout.splitlines()[-1:] == [str(home / name)], done.stderr

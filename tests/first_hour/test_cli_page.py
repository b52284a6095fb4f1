"""Walks docs/cli.md from its first command to its last, beside a running Simile."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest

from services.local.sample import draw_sample
from tests.first_hour.reader import BLOCK, ROOT, install, typed
from tests.support.running import simile_up

PAGE: Final = ROOT / "docs" / "cli.md"
NOT_TYPED: Final = {
    "source .venv/bin/activate": "the fixture puts the command on PATH",
    "simile up --images photos": "the fixture runs it",
    "export SIMILE_URL=http://simile.example.org": "an example of a name",
    "curl --location https://example.org/cat.jpg | simile query -": "another test pipes an image",
    "pip install pyarrow": "it is installed",
    'eval "$(_SIMILE_COMPLETE=zsh_source simile)"': "needs compinit; bash is typed",
}
"""Commands that are not typed, each with the reason."""

COMMANDS: Final = [
    line
    for block in BLOCK.findall(PAGE.read_text().split("\n# Reference\n")[0])
    for line in block.splitlines()
]


@dataclass(frozen=True, slots=True)
class Reader:
    """Has a folder with images, and a Simile that serves them.

    Attributes:
        folder: holds cat.jpg, dog.jpg, photos, and the volume.
        url: the address of the running Simile.
    """

    folder: Path
    url: str

    def type(self, line: str) -> str:
        """Type the line into bash, with the running Simile in place of the default address."""
        line = line.replace("http://127.0.0.1:8080", self.url)
        if line.startswith("simile index delete"):
            line += " --yes"  # the question is for a terminal
        return typed("bash", line, self.folder, PATH=self.path, SIMILE_URL=self.url)

    @property
    def path(self) -> str:
        """Return PATH with the command."""
        return f"{self.folder / 'bin'}:{os.environ['PATH']}"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Serve a folder; the collection `pets` lacks one of its images, so that a build adds it."""
    folder = tmp_path_factory.mktemp("cli")
    photos = folder / "photos"
    draw_sample(photos, per_class=2)
    cat, dog, *_, late = sorted(photos.glob("*/*.jpg"))
    for name, picture in (("cat", cat), ("dog", dog)):
        shutil.copy(picture, folder / f"{name}.jpg")
    install(folder / "bin")
    later = shutil.move(late, folder / "later.jpg")
    typed("bash", "simile index build photos --collection pets", folder,
          PATH=f"{folder / 'bin'}:{os.environ['PATH']}")  # fmt: skip
    shutil.move(later, late)
    arguments = ["--root", str(folder / "root"), "--images", str(photos)]
    with simile_up(folder / "up.log", *arguments) as (url, _):
        embedded = httpx.post(f"{url}/v1/embed", content=(folder / "cat.jpg").read_bytes())
        (folder / "vector.json").write_text(json.dumps(embedded.json()["vector"]))
        yield Reader(folder, url)


@pytest.mark.parametrize("line", [one for one in COMMANDS if one not in NOT_TYPED])
def test_a_command_does_what_the_page_says(line: str, reader: Reader) -> None:
    """In the order of the page, each command succeeds, and prints JSON where it says so."""
    printed = reader.type(line)
    if "--json" in line and ">" not in line and "|" not in line:
        json.loads(printed)


def test_files_hold_what_commands_wrote(reader: Reader) -> None:
    """After the walk the files are there that the page names, and `pets` is gone."""
    names = {"answers.jsonl", "duplicates.json", "evaluation.png"}
    assert names <= {path.name for path in reader.folder.iterdir()}
    for line in (reader.folder / "answers.jsonl").read_text().splitlines():
        assert "answer" in json.loads(line)
    assert {path.name for path in (reader.folder / "pets-export").iterdir()} >= {
        "vectors.npy",
        "items.jsonl",
    }
    listed = json.loads(reader.type("simile index list --json"))
    assert "pets" not in str(listed)


def test_every_command_that_is_not_typed_is_on_the_page() -> None:
    """A command that left the page has no reason any more."""
    assert NOT_TYPED.keys() <= set(COMMANDS)


def test_completion_of_bash_knows_the_commands(reader: Reader) -> None:
    """After the line of the page, bash completes by a function of Simile's."""
    line = 'eval "$(_SIMILE_COMPLETE=bash_source simile)" && complete -p simile'
    assert "_simile_completion" in reader.type(line)

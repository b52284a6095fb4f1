"""`simile index` prints and changes what its commands promise to an operator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from services.cli.main import main
from services.searcher.index.index import Index
from services.shared.lifecycle import ExitCode
from services.shared.volume.volume import Volume
from tests.support.volume import items, publish_version, unit_vectors


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """Publish three versions with two equal items, the last version active."""
    volume = Volume(tmp_path)
    vectors = unit_vectors(30)
    vectors[7] = vectors[3]
    for number in range(3):
        publish_version(volume, "birds", vectors, items(30), number=number, method="reduced")
    return volume


def _run(volume: Volume, *arguments: str) -> Result:
    # The width of a terminal shows tables that are too wide.
    runner = CliRunner(env={"COLUMNS": "80", "TERM": "dumb"})
    return runner.invoke(main, ["index", *arguments, "--root", str(volume.root)])


def test_the_list_shows_each_version_in_80_columns(volume: Volume) -> None:
    """The list holds version, method, recall and size, and marks active and held versions."""
    held = Index.open(volume, "birds", volume.versions("birds")[0])
    printed = _run(volume, "list").output
    assert held
    assert all(version in printed for version in volume.versions("birds"))
    assert printed.count("reduced") == 3
    assert printed.count("held") == 1
    assert printed.count(" * ") == 1
    assert max(map(len, printed.splitlines())) <= 80


def test_a_version_is_activated_and_rolled_back(volume: Volume) -> None:
    """Each command prints the active version; an unknown version is refused by name."""
    first, second, third = volume.versions("birds")
    went_back = _run(volume, "rollback", "birds").output.splitlines()
    assert went_back[0] == f"active: birds {second}"
    assert "--pin" in went_back[1]
    assert _run(volume, "activate", "birds", third).output == f"active: birds {third}\n"
    _run(volume, "activate", "birds", first)
    failed = _run(volume, "rollback", "birds")
    assert failed.exit_code != 0
    assert "unknown_version" in failed.output
    assert _run(volume, "activate", "birds", "nonsense").exit_code != 0
    assert volume.active("birds") == first


def test_a_rollback_can_be_pinned(volume: Volume) -> None:
    """The list shows the pin, and `unpin` names the newer version."""
    _, second, third = volume.versions("birds")
    assert "unpin birds" in _run(volume, "rollback", "birds", "--pin").output
    assert _run(volume, "list").output.count("* pin ") == 1
    printed = _run(volume, "unpin", "birds").output
    assert f"active is {second}" in printed
    assert third in printed
    assert " pin " not in _run(volume, "list").output
    assert _run(volume, "unpin", "fish").exit_code != 0


def test_verify_finds_the_broken_one(volume: Volume) -> None:
    """The command verifies the active version by default, or all versions, and names each."""
    first, _, third = volume.versions("birds")
    path = volume.directory("birds", first) / "reduced.f32"
    path.chmod(0o644)
    path.write_bytes(b"")
    assert _run(volume, "verify", "birds").output == f"sound: birds {third}\n"
    every = _run(volume, "verify", "birds", "--all")
    assert every.exit_code == 1
    assert [line.split(":")[0] for line in every.output.splitlines()] == [
        "broken", "sound", "sound",
    ]  # fmt: skip
    assert "index_corrupt" in _run(volume, "verify", "birds", first).output


def test_prune_says_what_it_does(volume: Volume) -> None:
    """A dry run changes nothing; without it, the old versions are removed."""
    then = time.time() - 3600
    for path in (volume.home("birds") / "ACTIVE", *(volume.home("birds") / "versions").iterdir()):
        os.utime(path, (then, then))
    assert "would be removed" in _run(volume, "prune", "birds", "--dry-run").output
    assert len(volume.versions("birds")) == 3
    assert "removed" in _run(volume, "prune", "birds").output
    assert len(volume.versions("birds")) == 2
    assert "unknown_collection" in _run(volume, "prune", "fish").output


def test_explain_shows_the_plans_and_draws_them(volume: Volume, tmp_path: Path) -> None:
    """The chosen plan is marked, the reason is given in words, and the plot is a picture."""
    plot = tmp_path / "plan.png"
    printed = _run(volume, "explain", "birds", "--plot", str(plot)).output
    assert "*  reduced" in printed
    assert "is the fastest of 1 plans" in printed
    with Image.open(plot) as picture:
        assert picture.width > 500
    assert max(map(len, printed.splitlines()[:6])) <= 80


def test_explaining_a_version_that_does_not_exist_is_an_unknown_version(volume: Volume) -> None:
    """The error is the one that `activate` gives for the same mistake."""
    for command in ("explain", "activate"):
        printed = _run(volume, command, "birds", "no-version").output
        assert printed.endswith("(unknown_version)\n")


def test_duplicates_are_a_table_and_a_sheet_or_json(volume: Volume, tmp_path: Path) -> None:
    """The two equal items form one group."""
    sheet = tmp_path / "duplicates.png"
    printed = _run(volume, "duplicates", "birds", "--distance", "0.01", "--sheet", str(sheet))
    assert "near-duplicates: 1" in printed.output
    assert "image-3.jpg" in printed.output
    assert sheet.stat().st_size > 0
    (group,) = json.loads(
        _run(volume, "duplicates", "birds", "--distance", "0.01", "--json").stdout
    )
    assert {item["path"] for item in group["items"]} == {"image-3.jpg", "image-7.jpg"}
    assert np.isclose(group["farthest"], 0, atol=1e-3)


_INTERRUPTED = """
import sys
from services.cli import main as cli
from services.local import up as local
async def build_index(*_, **__):
    return None
local.build_index = build_index
cli.main(["index", "build", "--root", sys.argv[1]])
"""


def test_an_interrupted_build_is_no_success(tmp_path: Path) -> None:
    """The exit code makes Kubernetes start the job again when its pod was moved during a build."""
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == ExitCode.FAILED
    assert "run the same command again" in done.stdout + done.stderr

"""Tests `tools/system.sh` on a system whose package manager is in use."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tools.chart.manifests import ROOT

LOCKED = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 42 (apt-get)"


def _installs(folder: Path, *answers: str) -> tuple[int, list[str], str]:
    """Return exit code, commands and output, where apt fails with these messages in turn."""
    for name in ("sh", "env", "test"):
        (folder / name).symlink_to(str(shutil.which(name)))
    (folder / "id").write_text("#!/bin/sh\necho 0\n")
    (folder / "sleep").write_text(f"#!/bin/sh\necho sleep >> {folder}/log\n")
    failures = "".join(
        f'[ $(($count)) -eq {place} ] && echo "{answer}" >&2 && exit 100\n'
        for place, answer in enumerate(answers)
    )
    (folder / "apt-get").write_text(
        f'#!/bin/sh\necho apt-get "$@" >> {folder}/log\n'
        f"count=0\n[ -e {folder}/count ] && read -r count < {folder}/count\n"
        f"echo $(($count + 1)) > {folder}/count\n{failures}exit 0\n"
    )
    for name in ("id", "sleep", "apt-get"):
        (folder / name).chmod(0o755)
    done = subprocess.run(
        ["sh", ROOT / "tools" / "system.sh", "bench"],
        env={"PATH": str(folder)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, (folder / "log").read_text().splitlines(), done.stderr


def test_it_waits_for_the_locks_of_apt(tmp_path: Path) -> None:
    """Locked package lists are requested again; dpkg's lock is awaited by an option of apt."""
    code, ran, _ = _installs(tmp_path, LOCKED, LOCKED)
    assert code == 0
    update = "apt-get -o DPkg::Lock::Timeout=600 update"
    assert ran[:5] == [update, "sleep", update, "sleep", update]
    assert ran[5].startswith("apt-get -o DPkg::Lock::Timeout=600 install --yes ")


@pytest.mark.parametrize("place", [0, 1])
def test_other_failures_are_reported_at_once(tmp_path: Path, place: int) -> None:
    """An unavailable mirror fails at once."""
    answers = [LOCKED] * place + ["E: Failed to fetch the lists"]
    code, ran, said = _installs(tmp_path, *answers)
    assert code == 1
    assert ran.count("sleep") == place
    assert "Failed to fetch" in said

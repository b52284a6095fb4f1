"""Types that openapi-typescript generates check a TypeScript program."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from services.upload import app

PROJECT = Path(__file__).parent / "typescript"


def test_a_program_is_checked_against_the_generated_types(tmp_path: Path) -> None:
    """The types of answers, forms and parameters exist under the names of the schemas."""
    folder = tmp_path / "typescript"
    shutil.copytree(PROJECT, folder)
    description = Path(app.__file__).with_name("openapi.json")
    binaries = folder / "node_modules" / ".bin"
    _run(folder, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
    _run(folder, binaries / "openapi-typescript", description, "--output", "api.d.ts")
    _run(folder, binaries / "tsc", "--project", ".")


def _run(folder: Path, *command: str | Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

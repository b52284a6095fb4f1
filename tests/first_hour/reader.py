"""Types the commands of a page into a shell, as a reader who copies them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.support.running import MODELS_DIR

ROOT: Final = Path(__file__).parents[2]
BLOCK: Final = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)


def commands(page: Path, section: str) -> list[str]:
    """Return the lines of the shell blocks of a section, given by its heading of level two."""
    text = page.read_text().split(f"## {section}\n", 1)[1].split("\n## ", 1)[0]
    return [line for block in BLOCK.findall(text) for line in block.splitlines() if line]


def install(folder: Path) -> None:
    """Write the command `simile` into the folder: it runs this tree."""
    command = folder / "simile"
    folder.mkdir(parents=True)
    command.write_text(
        f"#!{sys.executable}\nimport sys\nfrom services.__main__ import main\nsys.exit(main())\n"
    )
    command.chmod(0o755)


def typed(shell: str, line: str, folder: Path, **variables: str) -> str:
    """Type the line into an interactive shell in the folder, and return the output.

    The volume is `root` in the folder, which is also the home.

    Raises:
        AssertionError: the command failed; the message holds its output.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SIMILE_") or name == MODELS_DIR
    }
    done = subprocess.run(
        [shell, "-f", "-i", "-s"] if shell == "zsh" else [shell, "-i", "-s"],
        input=f"{line}\nexit $?\n", text=True, capture_output=True, timeout=120, check=False,
        cwd=folder, env={
            **environment, "SIMILE_ROOT": str(folder / "root"), "PS1": "", "HOME": str(folder),
            "PYTHONPATH": str(ROOT), **variables,
        },
    )  # fmt: skip
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout

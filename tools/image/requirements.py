"""Writes what each extra of pyproject.toml requires: requirements.py PYPROJECT FOLDER EXTRA...

An image's libraries are then installed before Simile's own code is copied, and are installed again
only when they change.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def main(pyproject: str, folder: str, *extras: str) -> None:
    """Write FOLDER/<extra>.txt, each with what every service requires, too."""
    project = tomllib.loads(Path(pyproject).read_text())["project"]
    for extra in extras:
        required = [*project["dependencies"], *project["optional-dependencies"][extra]]
        target = Path(folder) / f"{extra}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(f"{line}\n" for line in required))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Writes the requirements of extras of pyproject.toml: requirements.py PYPROJECT FOLDER EXTRA...

An image installs these before Simile's own code is copied, so that they are installed again
only when they change.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def main(pyproject: str, folder: str, *extras: str) -> None:
    """Write FOLDER/<extra>.txt, each with the common requirements as well."""
    project = tomllib.loads(Path(pyproject).read_text())["project"]
    for extra in extras:
        required = [*project["dependencies"], *project["optional-dependencies"][extra]]
        target = Path(folder) / f"{extra}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(f"{line}\n" for line in required))


if __name__ == "__main__":
    main(*sys.argv[1:])

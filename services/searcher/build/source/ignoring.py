"""Decides which files and folders of a collection's folder are never read.

Left out are hidden files, folders of systems and of NAS devices, folders that hold `.nomedia`, and
what `.simileignore` in the collection's folder names, in the syntax of .gitignore.
"""

from __future__ import annotations

import re
import stat
import warnings
from pathlib import Path
from typing import Final, Self

from pathspec import GitIgnoreSpec

from services.shared.errors import BuildFailed

IGNORE_FILE: Final = ".simileignore"
NO_MEDIA: Final = ".nomedia"

FOLDERS: Final = frozenset(
    {
        "@eadir", "#recycle", "#snapshot", "$recycle.bin", "__macosx", "lost+found",
        "system volume information",
    }
)  # fmt: skip
"""Folders of thumbnails, deleted files and file systems; in lower case, for systems differ."""

FILES: Final = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini"})
"""Files that systems put into folders of pictures; in lower case."""


_MAX_BYTES: Final = 64 * 1024
_MAX_STARS: Final = 3
"""The time to match a name grows with its length to the power of the number of stars."""


class Ignored:
    """Knows the rules of one folder."""

    def __init__(self, spec: GitIgnoreSpec | None = None) -> None:
        self._spec = spec

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Read the folder's ignore file. Raises BuildFailed for one that can't be used."""
        file = folder / IGNORE_FILE
        try:
            if not stat.S_ISREG(file.stat().st_mode):
                # A pipe or a device could be read for ever.
                message = f"{file} is not a regular file"
                raise BuildFailed(message)
            with file.open("rb") as opened:
                content = opened.read(_MAX_BYTES + 1)
            lines = content.decode("utf-8-sig").splitlines()
        except FileNotFoundError:
            return cls()
        except (OSError, UnicodeDecodeError) as error:
            message = f"{file} can't be read as UTF-8 text: {error}"
            raise BuildFailed(message) from error
        if len(content) > _MAX_BYTES:
            message = f"{file} has more than {_MAX_BYTES} bytes: give fewer patterns"
            raise BuildFailed(message)
        for number, line in enumerate(lines, start=1):
            _require_pattern(file, number, line)
        return cls(GitIgnoreSpec.from_lines(lines))

    def file(self, name: str, path: str) -> bool:
        """Return whether the file of that name and path is left out."""
        return name.startswith(".") or name.lower() in FILES or self._named(path)

    def folder(self, name: str, path: str) -> bool:
        """Return whether the folder of that name and path is left out."""
        return name.startswith(".") or name.lower() in FOLDERS or self._named(f"{path}/")

    def _named(self, path: str) -> bool:
        return self._spec is not None and self._spec.match_file(path)


def _require_pattern(file: Path, number: int, line: str) -> None:
    """Raise BuildFailed for a line that is no pattern, or that takes long to match."""
    if line.startswith("#"):
        return
    pattern = re.sub(r"\*{2,}", "**", line)
    stars = max(segment.replace("**", "").count("*") for segment in pattern.split("/"))
    if stars > _MAX_STARS or pattern.count("**") > _MAX_STARS:
        message = (
            f"{file}, line {number}: a pattern has at most {_MAX_STARS} * between two slashes, and "
            f"at most {_MAX_STARS} **"
        )
        raise BuildFailed(message)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            GitIgnoreSpec.from_lines([line])
    except (ValueError, re.error) as error:
        message = f"{file}, line {number}: {line.strip()!r} is no pattern ({error})"
        raise BuildFailed(message) from error

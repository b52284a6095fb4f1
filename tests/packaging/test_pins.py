"""Tests that the pinned versions are within the project's ranges."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[2]
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAME: Final = canonicalize_name(PROJECT["name"])
REQUIREMENTS: Final = sorted(
    {
        text
        for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
        for text in group
        if canonicalize_name(Requirement(text).name) != NAME
    }
)
PINS: Final = {
    canonicalize_name(name): version
    for name, _, version in (
        line.partition("==") for line in (ROOT / "constraints.txt").read_text().splitlines()
    )
    if version
}


@pytest.mark.parametrize("text", REQUIREMENTS)
def test_a_range_includes_the_pinned_version(text: str) -> None:
    """A clone installs with both: if they disagree, nothing can be installed."""
    requirement = Requirement(text)
    version = PINS[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version, prereleases=True)

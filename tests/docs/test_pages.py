"""Checks that files, headings, make targets, settings and codes named in the docs exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from services.shared import errors
from services.shared.telemetry.metric_names import STAGES
from tools import reference

ROOT = reference.DOCS.parent
CLIENT = ROOT / "clients" / "python" / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *reference.DOCS.glob("*.md"), CLIENT])
PARSED = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)

LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)")
TARGET = re.compile(r"^([a-z][a-z-]*):", re.MULTILINE)
TEST = re.compile(r"^ *(?:async )?def (test_[a-z0-9_]+)", re.MULTILINE)


def _anchors(page: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@PARSED
def test_links_resolve(path: Path) -> None:
    """Each relative link names a file, and each fragment a heading of it."""
    broken = []
    for name, anchor in LINK.findall(path.read_text(encoding="utf-8")):
        linked = path.parent / name if name else path
        if not linked.exists() or (anchor and anchor not in _anchors(linked.read_text())):
            broken.append(f"{name}#{anchor}")
    assert broken == []


@PARSED
def test_make_commands_exist(path: Path) -> None:
    """Each `make TARGET` that a page shows is a target of the Makefile."""
    page = path.read_text(encoding="utf-8")
    shown = re.findall(r"(?:^|`|&& )make ([a-z][a-z-]*)", page, re.MULTILINE)
    assert set(shown) <= set(TARGET.findall((ROOT / "Makefile").read_text()))


@PARSED
def test_simile_commands_exist(path: Path) -> None:
    """Each `simile COMMAND` that a page shows is a command."""
    page = path.read_text(encoding="utf-8")
    shown = re.findall(r"(?:^|`|bin/)simile ([a-z]+)", page, re.MULTILINE)
    known = set(re.findall(r"^## simile ([a-z]+)", reference.commands(), re.MULTILINE))
    former = {"export"} if path.name == "CHANGELOG.md" else set()
    assert set(shown) <= known | former


@PARSED
def test_settings_named_exist(path: Path) -> None:
    """Each SIMILE_ variable in a page is a setting, or a variable of the test suite."""
    tables = "".join(reference.BLOCKS[name]() for name in reference.BLOCKS if "settings" in name)
    known = {*re.findall(r"SIMILE_[A-Z_]+", tables), "SIMILE_TEST_DATA"}
    named = set(
        re.findall(r"(?<!_)SIMILE_[A-Z_]+[A-Z]\b(?!_?\*)", path.read_text(encoding="utf-8"))
    )
    assert named <= known


@PARSED
def test_metrics_named_exist(path: Path) -> None:
    """Each simile_ metric in a page is one that a service has."""
    tables = "".join(reference.BLOCKS[name]() for name in reference.BLOCKS if "metrics" in name)
    known = set(re.findall(r"simile_[a-z_]+", tables))
    suffixes = re.compile(r"_(bucket|count|sum)$")
    named = re.findall(
        r"simile_(?:upload|embedder|searcher|broker|process|index)_[a-z_]+", path.read_text()
    )
    assert {suffixes.sub("", name) for name in named} <= known


def test_the_readmes_example_answer_is_consistent() -> None:
    """The example's stages are those of a query, in order, and sum to its total."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r'"timings_ms": (\{[^}]*\})', page)
    *stages, total = json.loads(shown).items()
    assert [name for name, _ in stages] == [one for one in STAGES if one != "lookup"]
    assert total == ("total", pytest.approx(sum(spent for _, spent in stages)))


def test_the_threat_model_names_tests_that_exist() -> None:
    """Each folder, file and test that SECURITY.md's table points to is there."""
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    places = [ROOT / "tests" / name for name in re.findall(r"`([a-z]+/[a-z_/]+(?:\.py)?)`", page)]
    assert len(places) > 10
    assert [place for place in places if not place.exists()] == []
    files = [
        file for place in places for file in ([place] if place.is_file() else place.glob("*.py"))
    ]
    written = "".join(file.read_text(encoding="utf-8") for file in files)
    named = re.findall(r"`(test_\w+|Test\w+)`", page)
    assert named
    assert [name for name in named if not re.search(rf"(def|class) {name}\b", written)] == []


def test_the_pages_of_failures_name_codes_that_exist() -> None:
    """Each code in operations.md's tables is in the error tree."""
    page = (reference.DOCS / "operations.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\[`([a-z_]+)`\]\(errors\.md\)", page))
    assert named
    assert named <= set(errors.by_code())


def test_every_failure_names_tests_that_exist() -> None:
    """Each row of operations.md's tables ends with the tests that cover it."""
    page = (reference.DOCS / "operations.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    shown = {row: set(re.findall(r"`(test_[a-z0-9_]+)`", row.split(" | ")[-1])) for row in rows}
    heads = [row for row, tests in shown.items() if not tests]
    assert set(heads) == {"| you see | because | do | shown by |"}
    files = (ROOT / "tests").rglob("test_*.py")
    written = {name for file in files for name in TEST.findall(file.read_text(encoding="utf-8"))}
    assert set().union(*shown.values()) - written == set()

"""Stores figures: in a JSON file that runs add to, and a marked section of a page."""

from __future__ import annotations

import json
import os
import platform
import re
import textwrap
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import click
import psutil

PAGE: Final = "benchmarks.md"
_WIDTH: Final = 100
_PROSE: Final = re.compile(r"[^\s|#!<-]")
_LIBRARIES: Final = (
    "annoy", "faiss-cpu", "hnswlib", "numpy", "onnxruntime", "openvino", "torch",
)  # fmt: skip

Figures = dict[str, Any]

_VECTORS: Final = {
    "amx_bf16": "AMX", "avx512_bf16": "AVX-512 and bf16", "avx512f": "AVX-512", "avx2": "AVX2",
}  # fmt: skip
"""CPU flags that a model's speed depends on, widest first, with their names."""


def machine() -> Figures:
    """Describe the machine that the figures depend on."""
    facts = dict(_cpu_facts())
    able = [name for flag, name in _VECTORS.items() if flag in facts.get("flags", "").split()]
    return {
        "cores": os.cpu_count(),
        "cpu": " with ".join([facts.get("model name", platform.machine()), *able[:1]]),
        "memory_bytes": psutil.virtual_memory().total,
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in _LIBRARIES},
    }


def _cpu_facts() -> Iterator[tuple[str, str]]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        yield name.strip(), value.strip()


def load(path: Path) -> Figures:
    """Return the figures of earlier runs; empty at first."""
    stored: Figures = json.loads(path.read_text()) if path.exists() else {}
    return stored


def save(path: Path, figures: Mapping[str, Any]) -> None:
    """Replace the file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(figures, indent=1) + "\n")
    partial.rename(path)


def write_section(page: Path, name: str, text: str) -> None:
    """Replace the text between the page's markers, which are added at its end if missing."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    content = page.read_text() if page.exists() else "# Benchmarks\n"
    if begin not in content:
        content = f"{content.rstrip()}\n\n{begin}\n{end}\n"
    before, _, rest = content.partition(begin)
    if end not in rest:
        message = f"{page} has {begin} without {end}"
        raise click.ClickException(message)
    after = rest.partition(end)[2]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"{before}{begin}\n{wrapped(text.strip())}\n{end}{after}")


def wrapped(text: str) -> str:
    """Wrap the paragraphs of a section; tables, lists, headings and pictures stay as they are."""
    lines: list[str] = []
    words: list[str] = []
    for line in [*text.splitlines(), ""]:
        if _PROSE.match(line):
            words += line.split()
        else:
            filled = textwrap.fill(
                " ".join(words), _WIDTH, break_long_words=False, break_on_hyphens=False
            )
            lines += [filled, line] if words else [line]
            words = []
    return "\n".join(lines).rstrip()


def described(figures: Mapping[str, Any]) -> str:
    """Describe the machine in a line."""
    libraries = ", ".join(f"{name} {version}" for name, version in figures["libraries"].items())
    return (
        f"{figures['cores']} cores of {figures['cpu']}, "
        f"{figures['memory_bytes'] / 2**30:.0f} GiB, Python {figures['python']}; {libraries}"
    )

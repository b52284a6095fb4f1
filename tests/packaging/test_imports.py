"""Tests the imports of each service: no torch where it is absent, no side effects."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys

import pytest

import services

MODULES = sorted(module.name for module in pkgutil.walk_packages(services.__path__, "services."))

ISOLATED = """
import socket, sys

def refuse(*args, **kwargs):
    raise AssertionError("an import opened a socket")

socket.socket.connect = socket.socket.bind = refuse
"""


def _import_in_fresh_interpreter(*modules: str, environment: dict[str, str]) -> set[str]:
    """Return the top-level modules that are loaded after importing these."""
    code = ISOLATED + "\n".join(f"import {module}" for module in modules)
    code += "\nprint(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("services.upload.app", {"numpy", "torch", "torchvision", "annoy", "usearch"}),
        ("services.searcher.service", {"torch", "torchvision"}),
        ("services.searcher.build.builder", {"torch", "torchvision"}),
        ("services.embedder.service", {"annoy", "usearch"}),
        ("services.cli.main", {"numpy", "torch", "torchvision", "annoy", "usearch", "PIL"}),
        ("services.cli.main", {"httpx", "simile_client"}),  # they slow down every command
    ],
)
def test_a_service_loads_only_what_its_image_holds(module: str, absent: set[str]) -> None:
    """Importing a service in a fresh interpreter does not load the libraries of other services."""
    loaded = _import_in_fresh_interpreter(module, environment={})
    assert not loaded & absent


def test_no_import_reads_settings_or_opens_sockets() -> None:
    """Every module imports while each setting is invalid and connections are impossible."""
    nonsense = {"SIMILE_ADMIN_PORT": "x", "SIMILE_ROOT": "\n", "SIMILE_AMQP_URL": "nowhere"}
    for service in ("UPLOAD_PORT", "EMBEDDER_MODEL", "SEARCHER_THREADS", "INDEX_TREES"):
        nonsense[f"SIMILE_{service}"] = "nonsense"
    modules = [name for name in MODULES if not name.endswith("__main__")]
    assert "services" in _import_in_fresh_interpreter(*modules, environment=nonsense)

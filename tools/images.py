"""Builds Simile's images with podman or docker: `make images`; see docs/images.md.

Uses only the standard library: building images needs none of Simile's dependencies.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

ROOT: Final = Path(__file__).resolve().parents[1]
TARGETS: Final = ("upload", "searcher", "embedder")
LOCAL_BASE: Final = "localhost/simile-base"
_PIP_KEYS: Final = (
    "index-url", "extra-index-url", "find-links", "trusted-host", "proxy", "cert", "timeout",
)  # fmt: skip
_CA: Final = "/run/pip-ca.pem"


def version() -> str:
    """Return Simile's version, which is the tag of the images."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def image_name(target: str, device: str = "cpu", registry: str = "localhost") -> str:
    """Return the name of the target's image, with its tag."""
    suffix = "-cuda" if target == "embedder" and device == "cuda" else ""
    return f"{registry}/simile-{target}:{version()}{suffix}"


def environment() -> Mapping[str, str]:
    """Return podman's environment: without systemd it needs another configuration."""
    found = dict(os.environ)
    if not Path("/run/systemd/system").exists():
        found.setdefault("CONTAINERS_CONF", str(ROOT / "tools/image/containers.conf"))
    return found


def engine() -> str:
    """Return the program that builds images. Ends the process if there is none."""
    for name in ("podman", "docker"):
        if shutil.which(name):
            return name
    sys.exit("neither podman nor docker is installed")


def run(*command: str) -> None:
    """Run a command with its output passed through; ends the process when it fails."""
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment())
    if done.returncode:
        sys.exit(done.returncode)


def output(*command: str) -> str:
    """Return the output of a command; empty when it fails."""
    done = subprocess.run(
        command, check=False, cwd=ROOT, env=environment(), capture_output=True, text=True
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def pip_settings() -> Mapping[str, str]:
    """Return the indexes and options of this machine's pip: builds use the same."""
    lines = output(sys.executable, "-m", "pip", "config", "list").splitlines()
    found: dict[str, str] = {}
    for key, _, value in (line.partition("=") for line in lines):
        name = key.rpartition(".")[2]
        if name in _PIP_KEYS:
            found[name] = str(ast.literal_eval(value))
    return found


def local_folders(settings: Mapping[str, str]) -> Iterator[Path]:
    """Yield the local folders that those settings name."""
    for key in ("index-url", "extra-index-url", "find-links"):
        for place in settings.get(key, "").split():
            parts = urlsplit(place)
            if parts.scheme == "file":
                # An index's pages link to files beside its folder.
                yield Path(unquote(parts.path)).parent
            elif parts.scheme == "" and Path(place).is_absolute():
                yield Path(place)


def pip_options(folder: Path) -> Sequence[str]:
    """Return build options that give pip this machine's configuration, and leave none of it."""
    settings = dict(pip_settings())
    mounts = [f"{path}:{path}:ro" for path in sorted({*local_folders(settings)}) if path.is_dir()]
    if certificates := settings.get("cert"):
        mounts.append(f"{certificates}:{_CA}:ro")
        settings["cert"] = _CA
    if not settings:
        return []
    configuration = folder / "pip.conf"
    lines = (f"{key} = {' '.join(value.split())}\n" for key, value in settings.items())
    configuration.write_text("[global]\n" + "".join(lines))
    return [
        f"--secret=id=pip-conf,src={configuration}",
        *(f"--volume={mount}" for mount in mounts),
    ]


def require_mounts(name: str, pip: Sequence[str]) -> None:
    """End the process if the engine can't mount the folders that pip needs."""
    if name == "docker" and any(option.startswith("--volume=") for option in pip):
        sys.exit(
            "pip is configured with a certificate or a folder of packages here, which docker can't"
            " give to a build: install podman, or take them out of pip's configuration"
        )


def make_local_base() -> None:
    """Import Debian with Python as the base, if there is none yet, without a registry."""
    if not output("podman", "image", "inspect", "--format={{.Id}}", LOCAL_BASE):
        run("sh", "tools/image/base.sh", LOCAL_BASE)


def build(target: str, arguments: argparse.Namespace, pip: Sequence[str]) -> str:
    """Build an image; return its name."""
    name = image_name(target, arguments.device, arguments.registry)
    given = {
        "BASE": arguments.base,
        "DEVICE": arguments.device,
        "VERSION": version(),
        "REVISION": output("git", "rev-parse", "HEAD") or "unknown",
        **dict(pair.split("=", 1) for pair in arguments.build_arg),
    }
    run(
        engine(), "build", "--network=host", f"--target={target}", f"--tag={name}", *pip,
        *(f"--build-arg={key}={value}" for key, value in given.items() if value),
        *(f"--build-context={context}" for context in arguments.build_context),
        ".",
    )  # fmt: skip
    return name


def main() -> None:
    """Build the images that the command line names; print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"which images; default: {', '.join(TARGETS)}")
    parser.add_argument("--base", help="an image with Python; `local`: made here, of Debian")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="the embedder's")
    parser.add_argument("--registry", default="localhost", help="how the names begin")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--build-context", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--names", action="store_true", help="print the names; build nothing")
    arguments = parser.parse_args()
    targets = arguments.targets or TARGETS
    if arguments.names:
        print(*(image_name(one, arguments.device, arguments.registry) for one in targets))
        return
    if arguments.base == "local":
        make_local_base()
        arguments.base = LOCAL_BASE
    with tempfile.TemporaryDirectory() as folder:
        pip = pip_options(Path(folder))
        require_mounts(engine(), pip)
        names = [build(target, arguments, pip) for target in targets]
    for name in names:
        size = int(output(engine(), "image", "inspect", "--format={{.Size}}", name))
        print(f"{name}  {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()

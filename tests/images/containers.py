"""The containers that docs/images.md and compose.yaml start, and the environment of each."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
import yaml

from tools import images

PAGE: Final = (images.ROOT / "docs" / "images.md").read_text()
COMPOSE: Final = images.ROOT / "compose.yaml"


@dataclass
class Container:
    """Describes a container.

    Attributes:
        image: the name of its image, with the tag.
        arguments: the command in it; empty runs the image's own.
        variables: the environment that it is given beside the image's.
        volumes: `source:target[:ro]`.
    """

    image: str
    arguments: list[str]
    variables: dict[str, str] = field(default_factory=dict)
    volumes: list[str] = field(default_factory=list)

    @property
    def command(self) -> str:
        """Return the command of Simile that runs in it."""
        return self.arguments[0] if self.arguments else _image_default(self.image)

    def set_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Give this process the variables of the container: the Dockerfile's and its own."""
        text = (images.ROOT / "Dockerfile").read_text()
        ours = {"runtime", _image_default(self.image)}
        for stage in re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]:
            if stage.partition("\n")[0].rpartition(" AS ")[2] in ours:
                for name, value in re.findall(r"(SIMILE_\w+)=(\S+)", stage):
                    monkeypatch.setenv(name, value)
        for name, value in self.variables.items():
            monkeypatch.setenv(name, value)


def _image_default(image: str) -> str:
    return image.partition(":")[0].rpartition("-")[2]


def of_page() -> Iterator[Container]:
    """Yield the container of each `podman run` of docs/images.md."""
    (block,) = (one for one in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if "run -d" in one)
    known: dict[str, str] = {}
    for line in block.replace("\\\n", " ").splitlines():
        match shlex.split(line):
            case ["export", setting]:
                name, _, value = setting.partition("=")
                known[name] = value
            case ["podman", "run", *words]:
                yield _container(words, known)
            case _:
                pass


def _container(words: list[str], known: dict[str, str]) -> Container:
    made = Container("", [])
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option in {"-e", "-v", "-p"}:
            value = words.pop(0)
            if option == "-v":
                made.volumes.append(value)
            if option == "-e":
                name, _, given = value.partition("=")
                made.variables[name] = given or known[name]
    made.image, *made.arguments = words
    return made


def composed(**variables: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the services of compose.yaml with those variables, and defaults for the others."""

    def value(found: re.Match[str]) -> str:
        name, kind, default = found.groups()
        if kind == ":?" and name not in variables:
            raise LookupError(default)
        return variables.get(name, default)

    text = re.sub(r"\$\{(\w+)(:-|:\?)([^}]*)\}", value, COMPOSE.read_text())
    services: Mapping[str, Mapping[str, Any]] = yaml.safe_load(text)["services"]
    return services


def of_compose() -> Iterator[Container]:
    """Yield the containers of compose.yaml."""
    for service in composed(IMAGES="/home/me/Pictures").values():
        yield Container(
            service["image"], service.get("command", []),
            dict(service.get("environment", {})), service.get("volumes", []),
        )  # fmt: skip

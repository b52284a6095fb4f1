"""Tests the commands of docs/images.md as far as possible without a container."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import click
import pytest

from services.cli import main as cli
from services.embedder.settings import EmbedderSettings
from services.searcher.settings import IndexSettings, SearcherSettings
from services.shared.environment import EnvironmentSettings
from services.shared.errors import InvalidSettings
from services.shared.settings import SharedSettings, load
from services.upload.settings import UploadSettings
from tools import images

PAGE = (images.ROOT / "docs" / "images.md").read_text()
SETTINGS: Mapping[str, type[EnvironmentSettings]] = {
    "upload": UploadSettings,
    "searcher": SearcherSettings,
    "embedder": EmbedderSettings,
    "index": IndexSettings,
}


@dataclass
class Container:
    """A `podman run` of the page."""

    image: str
    arguments: list[str]
    variables: dict[str, str] = field(default_factory=dict)
    volumes: list[str] = field(default_factory=list)

    @property
    def command(self) -> str:
        """Return the command of Simile that it runs."""
        return self.arguments[0] if self.arguments else _image_default(self.image)


def _image_default(image: str) -> str:
    return image.partition(":")[0].rpartition("-")[2]


def _containers() -> Iterator[Container]:
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


CONTAINERS = list(_containers())
OURS = [one for one in CONTAINERS if "simile-" in one.image]


def _environment(one: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment of the container, from the Dockerfile and from the command."""
    text = (images.ROOT / "Dockerfile").read_text()
    ours = {"runtime", _image_default(one.image)}
    for stage in re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]:
        if stage.partition("\n")[0].rpartition(" AS ")[2] in ours:
            for name, value in re.findall(r"(SIMILE_\w+)=(\S+)", stage):
                monkeypatch.setenv(name, value)
    for name, value in one.variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("one", OURS, ids=lambda one: one.command)
def test_each_container_has_the_settings_that_it_needs(
    one: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No command of the page exits with code 78, and each service has a broker."""
    _environment(one, monkeypatch)
    load(SETTINGS[one.command])
    url = load(SharedSettings).amqp_url
    assert url is not None
    names = [name for other in CONTAINERS for name in re.findall(r"rabbitmq", other.image)]
    assert f"@{names[0]}:5672/" in url.get_secret_value()
    assert one.image == images.image_name(_image_default(one.image))


def test_upload_without_its_variable_exits_as_the_page_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the variable of its command upload exits as the page says."""
    (upload,) = (one for one in OURS if one.command == "upload")
    _environment(upload, monkeypatch)
    monkeypatch.delenv("SIMILE_UPLOAD_ALLOW_ANONYMOUS")
    with pytest.raises(InvalidSettings, match="SIMILE_UPLOAD_ALLOW_ANONYMOUS"):
        load(UploadSettings)


def test_the_commands_start_simile_in_a_working_order() -> None:
    """The first container that mounts the new volume may write it; upload finds the images.

    Podman gives a new volume to the user of the image that mounts it first.
    """
    assert [one.command for one in OURS] == ["embedder", "index", "searcher", "upload"]
    _, build, searcher, upload = OURS
    assert "simile:/data" in build.volumes
    assert "simile:/data:ro" in searcher.volumes
    assert set(upload.volumes) - set(searcher.volumes) < set(build.volumes)
    command = cli.main.get_command(click.Context(cli.main), "index")
    assert isinstance(command, click.Group)
    verb, folder = build.arguments[1:]
    assert verb in command.commands
    assert any(volume.split(":")[1] == folder for volume in build.volumes)

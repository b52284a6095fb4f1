"""docs/images.md and compose.yaml start what they say, as far as is seen without a container."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click
import pytest

from services.cli import main as cli
from services.embedder.settings import EmbedderSettings
from services.searcher.settings import IndexSettings, SearcherSettings
from services.shared.environment import EnvironmentSettings
from services.shared.errors import InvalidSettings
from services.shared.settings import SharedSettings, load
from services.upload.settings import UploadSettings
from tests.images.containers import Container, composed, of_compose, of_page
from tools import images

SETTINGS: Mapping[str, type[EnvironmentSettings]] = {
    "upload": UploadSettings,
    "searcher": SearcherSettings,
    "embedder": EmbedderSettings,
    "index": IndexSettings,
}


def _ours(containers: Sequence[Container]) -> Sequence[Container]:
    return [one for one in containers if "simile-" in one.image]


CONTAINERS = list(of_page())
OURS = _ours(CONTAINERS)
COMPOSED = _ours(list(of_compose()))


EACH = pytest.mark.parametrize("ours", [OURS, COMPOSED], ids=["page", "compose"])


@pytest.mark.parametrize("one", [*OURS, *COMPOSED], ids=lambda one: one.command)
def test_each_container_has_the_settings_that_it_needs(
    one: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No container ends with code 78, and each service has the address of its broker."""
    one.set_environment(monkeypatch)
    load(SETTINGS[one.command])
    url = load(SharedSettings).amqp_url
    assert url is not None
    assert "@rabbitmq:5672/" in url.get_secret_value()
    target = "searcher" if one.command == "index" else one.command
    assert one.image == images.image_name(target)


def test_the_broker_has_the_name_and_password_of_the_address() -> None:
    """RabbitMQ's container is found under the name of SIMILE_AMQP_URL, and has its user."""
    broker = composed(IMAGES="/i", RABBITMQ_PASSWORD="s3cret")["rabbitmq"]
    upload = composed(IMAGES="/i", RABBITMQ_PASSWORD="s3cret")["upload"]
    environment = broker["environment"]
    user, password = environment["RABBITMQ_DEFAULT_USER"], environment["RABBITMQ_DEFAULT_PASS"]
    assert upload["environment"]["SIMILE_AMQP_URL"] == f"amqp://{user}:{password}@rabbitmq:5672/"
    (image,) = (one.image for one in CONTAINERS if "rabbitmq" in one.image)
    assert broker["image"] == image


@EACH
def test_upload_that_admits_anybody_needs_the_variable(
    ours: Sequence[Container], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upload starts without API keys because of a variable of its container alone."""
    (upload,) = (one for one in ours if one.command == "upload")
    upload.set_environment(monkeypatch)
    monkeypatch.delenv("SIMILE_UPLOAD_ALLOW_ANONYMOUS")
    with pytest.raises(InvalidSettings, match="SIMILE_UPLOAD_ALLOW_ANONYMOUS"):
        load(UploadSettings)


@EACH
def test_containers_start_in_a_working_order(ours: Sequence[Container]) -> None:
    """The job is the first at the new volume, and upload has images under the paths of the index.

    Podman and docker give a new volume to the user of the image that mounts it first.
    """
    assert [one.command for one in ours] == ["embedder", "index", "searcher", "upload"]
    _, build, searcher, upload = ours
    assert "simile:/data" in build.volumes
    assert "simile:/data:ro" in searcher.volumes
    assert set(upload.volumes) - set(searcher.volumes) < set(build.volumes)
    command = cli.main.get_command(click.Context(cli.main), "index")
    assert isinstance(command, click.Group)
    verb, folder = build.arguments[1:]
    assert verb in command.commands
    assert any(volume.split(":")[1] == folder for volume in build.volumes)


@pytest.mark.parametrize("name", ["embedder", "index", "searcher", "upload"])
def test_composed_containers_are_confined(name: str) -> None:
    """Our containers have a read-only root and no capabilities."""
    service = composed(IMAGES="/i")[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges" in service["security_opt"]


def test_the_page_is_published_on_loopback_alone() -> None:
    """Upload has no API keys in compose.yaml: other machines must not reach its port."""
    services = composed(IMAGES="/i", PORT="8081")
    assert services["upload"]["ports"] == ["127.0.0.1:8081:8080"]
    assert not any("ports" in service for name, service in services.items() if name != "upload")


def test_compose_without_images_names_the_variable() -> None:
    """Whoever forgets IMAGES reads what to set."""
    with pytest.raises(LookupError, match="set IMAGES to the folder"):
        composed()

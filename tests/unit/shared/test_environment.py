"""Empty variables count as unset, those of Kubernetes are ignored, misspelt names are reported."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from services.clients.api import ClientSettings
from services.embedder.settings import EmbedderSettings
from services.searcher.settings import IndexSettings, SearcherSettings
from services.shared.environment import unknown_variables
from services.shared.errors import InvalidSettings
from services.shared.setting_names import NAMES
from services.shared.settings import SharedSettings, load
from services.upload.settings import UploadSettings

KINDS: tuple[type[BaseSettings], ...] = (
    SharedSettings,
    UploadSettings,
    EmbedderSettings,
    SearcherSettings,
    IndexSettings,
    ClientSettings,
)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_variable_counts_as_unset(
    kind: type[BaseSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each field of each class has its default, as without the variable."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    expected = kind().model_dump()
    for field in kind.model_fields:
        monkeypatch.setenv(f"{kind.model_config.get('env_prefix')}{field}".upper(), "")
    assert kind().model_dump() == expected


def test_an_empty_option_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--amqp-url ""` counts as absent, and does not hide the environment."""
    monkeypatch.setenv("SIMILE_REPLICA", "here")
    assert load(SharedSettings, replica="", amqp_url="").replica == "here"


def test_a_tilde_in_a_path_is_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A tilde is expanded in variables and options, so that no folder `~` is created."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SIMILE_UPLOAD_IMAGES_ROOT", "~/images")
    assert load(UploadSettings).images_root == tmp_path / "images"
    assert load(SharedSettings, root=Path("~/data")).root == tmp_path / "data"


SERVICE_LINKS = {
    "SIMILE_UPLOAD_SERVICE_HOST": "10.0.0.1",
    "SIMILE_UPLOAD_SERVICE_PORT": "80",
    "SIMILE_UPLOAD_SERVICE_PORT_HTTP": "80",
    "SIMILE_UPLOAD_PORT": "tcp://10.0.0.1:80",
    "SIMILE_UPLOAD_PORT_80_TCP": "tcp://10.0.0.1:80",
    "SIMILE_UPLOAD_PORT_80_TCP_PROTO": "tcp",
    "SIMILE_UPLOAD_PORT_80_TCP_PORT": "80",
    "SIMILE_UPLOAD_PORT_80_TCP_ADDR": "10.0.0.1",
    "SIMILE_PORT": "tcp://10.0.0.2:80",
    "SIMILE_SERVICE_HOST": "10.0.0.2",
    "SIMILE_RABBITMQ_PORT": "tcp://10.0.0.3:5672",
}


def test_variables_of_kubernetes_services_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Service named simile-upload neither breaks the port setting nor causes a warning."""
    for name, value in SERVICE_LINKS.items():
        monkeypatch.setenv(name, value)
    assert load(UploadSettings).port == 8080
    assert list(unknown_variables(SERVICE_LINKS)) == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SIMILE_UPLAOD_PORT", "SIMILE_UPLOAD_PORT"),
        ("SIMILE_AMPQ_URL", "SIMILE_AMQP_URL"),
        ("SIMILE_LOGLEVEL", "SIMILE_LOG_LEVEL"),
        ("SIMILE_EMBEDDER_BATCH_SIZE", "SIMILE_EMBEDDER_MAX_BATCH_SIZE"),
        ("simile_rot", "SIMILE_ROOT"),
    ],
)
def test_a_misspelt_variable_is_named_with_what_is_meant(name: str, meant: str) -> None:
    """The line holds the given name and the nearest setting, not the value."""
    (line,) = unknown_variables({name: "secret"})
    assert line.startswith(name)
    assert line.endswith(f"did you mean {meant}?")
    assert "secret" not in line


def test_a_name_like_no_other_leads_to_the_list() -> None:
    """Without a similar setting, the line names the documentation."""
    (line,) = unknown_variables({"SIMILE_FOO": "1"})
    assert "docs/configuration.md" in line


def test_every_setting_and_foreign_variables_pass() -> None:
    """Settings, variables of tests, and those of other programs cause no warning."""
    known = dict.fromkeys([*NAMES, "simile_root", "SIMILE_TEST_DATA", "PATH", "MY_SIMILE_X"], "1")
    assert list(unknown_variables(known)) == []


@pytest.mark.parametrize(
    "url",
    [
        "amqp://user:password@host:5672/",
        "amqps://user:password@host/vhost?heartbeat=10",
        "AMQP://host",
        "amqp://user:p%2Fa%3Fs%23s%25@[::1]:5672/a%2Fb",
        "amqp://user:p@ss:word@host/",
    ],
)
def test_an_amqp_url_is_accepted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The URLs that RabbitMQ's clients accept are valid."""
    monkeypatch.setenv("SIMILE_AMQP_URL", url)
    settings = load(SharedSettings)
    assert settings.amqp_url is not None
    assert settings.amqp_url.get_secret_value() == url


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("user:hunter2@host:5672", "must begin with amqp:// or amqps://"),
        ("http://user:hunter2@host/", "must begin with amqp:// or amqps://"),
        ("localhost", "must begin with amqp:// or amqps://"),
        ("amqp://user:hun/ter2@host/", "percent-encoded"),
        ("amqp://user:hun#ter2@host/", "percent-encoded"),
        ("amqp://user:hun?ter2@host/", "percent-encoded"),
        ("amqp://user:hun[ter2@host/", "percent-encoded"),
        ("amqp://user:hunter2%@host/", "percent-encoded"),
        ("amqp://user:hun ter2@host/", "percent-encoded"),
        ("amqp://user:hunter2@host:none/", "host or port"),
        ("amqp://user:hunter2@host:99999/", "host or port"),
        ("amqp://user:hunter2@/", "names no host"),
        ("amqp://", "names no host"),
    ],
)
def test_a_wrong_amqp_url_is_refused_with_the_reason(
    url: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal comes before a connection is tried, and does not repeat the password."""
    monkeypatch.setenv("SIMILE_AMQP_URL", url)
    with pytest.raises(InvalidSettings, match=r"^SIMILE_AMQP_URL: ") as seen:
        load(SharedSettings)
    assert reason in str(seen.value)
    assert "ter2" not in str(seen.value)

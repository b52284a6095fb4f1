"""Settings are read from SIMILE_*, checked, and never shown when secret."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from services.shared.errors import InvalidSettings
from services.shared.settings import SharedSettings, load


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A field's variable is SIMILE_ and its name in capitals."""
    monkeypatch.setenv("SIMILE_IMAGE_MAX_PIXELS", "1000")
    assert load(SharedSettings).image_max_pixels == 1000


def test_an_override_wins_and_none_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command's option overrides the environment; an option not given does not."""
    monkeypatch.setenv("SIMILE_REPLICA", "from-environment")
    assert load(SharedSettings, replica="from-option").replica == "from-option"
    assert load(SharedSettings, replica=None).replica == "from-environment"


def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable to correct, and hides the value, which may be a secret."""
    monkeypatch.setenv("SIMILE_DRAIN_TIMEOUT_SECONDS", "minus-one")
    with pytest.raises(InvalidSettings, match="SIMILE_DRAIN_TIMEOUT_SECONDS: ") as seen:
        load(SharedSettings)
    assert "minus-one" not in str(seen.value)


def test_the_broker_password_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither repr nor a dump shows the URL."""
    monkeypatch.setenv("SIMILE_AMQP_URL", "amqp://user:hunter2@host/")
    settings = load(SharedSettings)
    assert "hunter2" not in repr(settings) + str(settings.model_dump())


def test_settings_are_frozen() -> None:
    """A setting can't be changed after it was read."""
    with pytest.raises(ValidationError):
        load(SharedSettings).replica = "other"  # type: ignore[misc]

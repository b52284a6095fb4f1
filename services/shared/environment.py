"""Reads settings from the environment, without the variables that Kubernetes adds."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from pydantic import field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from services.shared.setting_names import NAMES

_PREFIX: Final = "SIMILE_"
_WITHOUT_PREFIX: Final = sorted(name.removeprefix(_PREFIX) for name in NAMES)
_SIMILAR: Final = 0.75
_IGNORED: Final = ("SIMILE_TEST_", "SIMILE_BENCH_")
"""Variables of the project's own tests and benchmarks."""

# Kubernetes describes each Service of the namespace to each container (enableServiceLinks): one
# named simile-upload gives SIMILE_UPLOAD_PORT=tcp://10.0.0.1:80, which is no port to listen on.
_LINK_NAME: Final = re.compile(
    r"SIMILE_(.+_)?"
    r"(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_LINK_VALUE: Final = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)


class EnvironmentSettings(BaseSettings):
    """Reads settings from the environment; an empty variable counts as unset."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    @field_validator("*", mode="after")
    @classmethod
    def _read_home(cls, value: object) -> object:
        """Read `~` in a path: no shell reads one in `--root=~/data`, in quotes, or in a file."""
        try:
            return value.expanduser() if isinstance(value, Path) else value
        except RuntimeError as error:
            raise ValueError(str(error)) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read overrides, then the environment without what Kubernetes puts into it."""
        del settings_cls, dotenv_settings, file_secret_settings
        if isinstance(env_settings, EnvSettingsSource):
            env_settings.env_vars = {
                name: value
                for name, value in env_settings.env_vars.items()
                if not (value and _is_service_link(name, value))
            }
        return init_settings, env_settings


def unknown_variables(environment: Mapping[str, str]) -> Iterator[str]:
    """Name each SIMILE_* variable that is no setting, with the setting it is likely to mean."""
    for name, value in environment.items():
        upper = name.upper()
        if not upper.startswith(_PREFIX) or upper in NAMES or upper.startswith(_IGNORED):
            continue
        if _is_service_link(upper, value):
            continue
        # With the prefix any two names would be similar.
        similar = difflib.get_close_matches(
            upper.removeprefix(_PREFIX), _WITHOUT_PREFIX, n=1, cutoff=_SIMILAR
        )
        hint = (
            f": did you mean {_PREFIX}{similar[0]}?"
            if similar
            else "; docs/configuration.md lists them"
        )
        yield f"{name} is not a setting of Simile and has no effect{hint}"


def _is_service_link(name: str, value: str) -> bool:
    upper = name.upper()
    described = upper.endswith("_PORT") and _LINK_VALUE.match(value)
    return bool(described or _LINK_NAME.fullmatch(upper))

"""Maps settings to the chart's values: SIMILE_EMBEDDER_MAX_BATCH_SIZE is embedder.maxBatchSize.

The settings classes are the only source, so a new setting is a new value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from services.embedder.settings import EmbedderSettings
from services.searcher.settings import IndexSettings, SearcherSettings
from services.shared.settings import SharedSettings
from services.upload.settings import UploadSettings

SECTIONS: Final[Mapping[str, type[BaseSettings]]] = {
    "shared": SharedSettings,
    "upload": UploadSettings,
    "embedder": EmbedderSettings,
    "searcher": SearcherSettings,
    "index": IndexSettings,
}
"""Section of the values -> settings class; shared settings are at the top, without a section."""

WIRED: Final = frozenset(
    {
        "SIMILE_ADMIN_HOST",
        "SIMILE_ADMIN_PORT",
        "SIMILE_AMQP_CA_FILE",
        "SIMILE_AMQP_CERT_FILE",
        "SIMILE_AMQP_KEY_FILE",
        "SIMILE_AMQP_URL",
        "SIMILE_INDEX_ADMIN_PORT",
        "SIMILE_REPLICA",
        "SIMILE_ROOT",
        "SIMILE_UPLOAD_ALLOW_ANONYMOUS",
        "SIMILE_UPLOAD_API_KEYS_FILE",
        "SIMILE_UPLOAD_HOST",
        "SIMILE_UPLOAD_PORT",
        "SIMILE_UPLOAD_TLS_CERT_FILE",
        "SIMILE_UPLOAD_TLS_KEY_FILE",
    }
)
"""Settings that templates derive from other values, such as paths of mounted Secrets."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting that is a value of the chart, with its three names."""

    section: str
    value_name: str
    variable: str
    field: FieldInfo

    @property
    def comment(self) -> str:
        """Return its meaning, and the default for null."""
        return f"{str(self.field.description).rstrip('.')}.{self._default()}"

    def _default(self) -> str:
        default = self.field.default
        # Generated defaults and paths in a home folder differ in a pod.
        if (
            self.field.default_factory is not None
            or default in (None, "")
            or isinstance(default, Path)
        ):
            return ""
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        return f" Null: {shown}."

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of accepted values; null is always among them."""
        made = TypeAdapter(self.field.rebuild_annotation()).json_schema()
        return _nullable(_plain(made))


def settings() -> list[Setting]:
    """Return every setting that is a value, in the order of the code."""
    found = []
    for section, kind in SECTIONS.items():
        prefix = str(kind.model_config.get("env_prefix", ""))
        for name, field in kind.model_fields.items():
            variable = f"{prefix}{name}".upper()
            if variable not in WIRED:
                found.append(Setting(section, camel(name), variable, field))
    return found


def camel(name: str) -> str:
    """Convert max_batch_size to maxBatchSize."""
    return re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), name)


def _plain(schema: Any) -> Any:
    """Remove keys that pydantic adds for Python."""
    if isinstance(schema, dict):
        return {key: _plain(part) for key, part in schema.items() if key not in {"title", "format"}}
    if isinstance(schema, list):
        return [_plain(part) for part in schema]
    return schema


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    options = [option for option in schema.get("anyOf", [schema]) if option.get("type") != "null"]
    if len(options) > 1:
        return {"anyOf": [*options, {"type": "null"}]}
    (option,) = options
    if "enum" in option:
        return {"enum": [*option["enum"], None]}
    return {**option, "type": [option["type"], "null"]}

"""Generates the tables in docs/: settings, metrics, errors, queues, commands.

`python -m tools.reference` writes them between their markers; a test detects drift.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, get_args, get_origin

import annotated_types
import click
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from services.cli import main as cli
from services.clients.api import ClientSettings
from services.embedder.metrics import EmbedderMetrics
from services.embedder.settings import EmbedderSettings
from services.searcher.build.build_metrics import BuildMetrics
from services.searcher.metrics import SearcherMetrics
from services.searcher.settings import IndexSettings, SearcherSettings
from services.shared import errors, lifecycle
from services.shared.contracts.parameters import PARAMETERS, Parameter, Route
from services.shared.messaging import topology
from services.shared.messaging.broker import Queue
from services.shared.messaging.metrics import BrokerMetrics
from services.shared.settings import SharedSettings
from services.shared.telemetry.health import HealthMetrics
from services.shared.telemetry.loop import ProcessMetrics
from services.shared.telemetry.metrics import ReleaseMetrics
from services.upload.metrics import UploadMetrics
from services.upload.settings import UploadSettings
from tools import client, openapi

ROOT: Final = Path(__file__).resolve().parents[1]
DOCS: Final = ROOT / "docs"
SETTING_NAMES: Final = ROOT / "services" / "shared" / "setting_names.py"
SETTINGS: Final[tuple[type[BaseSettings], ...]] = (
    SharedSettings,
    UploadSettings,
    EmbedderSettings,
    SearcherSettings,
    IndexSettings,
    ClientSettings,
)

_BLOCK: Final = re.compile(
    r"(?P<start><!-- generated: (?P<name>[a-z-]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL
)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def _prose(text: str | None) -> str:
    return str(text).replace("<", "&lt;")


def settings(kind: type[BaseSettings]) -> str:
    """Return a row for every setting: its variable, accepted values, default, meaning."""
    prefix = str(kind.model_config.get("env_prefix", ""))
    return _table(
        ["variable", "accepts", "default", "meaning"],
        (
            [
                f"`{prefix}{name}`".upper(),
                _accepts(field),
                _default(field),
                _prose(field.description),
            ]
            for name, field in kind.model_fields.items()
        ),
    )


def setting_names() -> str:
    """Return the module with every variable's name, since no service imports another's settings."""
    names = sorted(
        f"{kind.model_config.get('env_prefix', '')}{field}".upper()
        for kind in SETTINGS
        for field in kind.model_fields
    )
    listed = "".join(f'        "{name}",\n' for name in names)
    return (
        '"""The names of all settings; `make docs` writes them."""\n\n'
        "from __future__ import annotations\n\n"
        "from typing import Final\n\n"
        f"NAMES: Final = frozenset(\n    {{\n{listed}    }}\n)\n"
    )


def _accepts(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(field.annotation))
    bounds = []
    for bound in field.metadata:
        match bound:
            case annotated_types.Gt(gt=low):
                bounds.append(f"over {_number(low)}")
            case annotated_types.Ge(ge=low):
                bounds.append(f"from {_number(low)}")
            case annotated_types.Le(le=high):
                bounds.append(f"to {_number(high)}")
            case _:
                bounds.append(f"`{bound.pattern}`")
    kinds = {int: "whole number", float: "number", bool: "`true` or `false`", Path: "path"}
    types = [kind for kind in (field.annotation, *get_args(field.annotation)) if kind in kinds]
    return ", ".join([kinds[types[0]] if types else "text", *bounds])


def _number(bound: object) -> str:
    return f"{bound:g}" if isinstance(bound, float) else f"{bound}"


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "set at start"
    match field.default:
        case None | "":
            return ""
        case Path() as path:
            home = Path.home()
            return f"`~/{path.relative_to(home)}`" if path.is_relative_to(home) else f"`{path}`"
        case bool() as value:
            return f"`{value}`".lower()
        case value:
            return f"`{value}`"


class _Recorder(CollectorRegistry):
    """Lists the registered metrics, labelled or not."""

    def __init__(self) -> None:
        super().__init__()
        self.collectors: list[Collector] = []

    def register(self, collector: Collector) -> None:
        self.collectors.append(collector)
        super().register(collector)


def metrics(kind: Callable[[CollectorRegistry], object]) -> str:
    """Return a row for every metric: its name, type, labels, meaning."""
    registry = _Recorder()
    kind(registry)
    return _table(["metric", "type", "labels", "meaning"], map(_metric_row, registry.collectors))


def _metric_row(collector: Collector) -> list[str]:
    (family,) = collector.describe()  # type: ignore[attr-defined]
    suffix = "_total" if family.type == "counter" else ""
    labels = collector._labelnames  # type: ignore[attr-defined]  # noqa: SLF001 (no public name)
    return [
        f"`{family.name}{suffix}`",
        family.type,
        ", ".join(f"`{label}`" for label in labels),
        family.documentation,
    ]


def caller_errors() -> str:
    """Return a row for every code that a caller of the HTTP API can get."""
    found = openapi.caller_errors()
    return _table(
        ["code", "status", "retry after", "meaning"],
        (
            [f"`{cls.code}`", str(cls.status), _retry_after(cls), _summary(cls)]
            for cls in sorted(found, key=lambda cls: cls.status)
        ),
    )


def operator_errors() -> str:
    """Return a row for every code that only logs, metrics and the command line show."""
    callers = set(openapi.caller_errors())
    found = [cls for cls in errors.by_code().values() if cls not in callers]
    return _table(["code", "meaning"], ([f"`{cls.code}`", _summary(cls)] for cls in found))


def _retry_after(cls: type[errors.SimileError]) -> str:
    return "" if cls.retry_after_seconds is None else f"{cls.retry_after_seconds} s"


def _summary(thing: object) -> str:
    return str(thing.__doc__).split("\n\n", maxsplit=1)[0]


def exit_codes() -> str:
    """Return a row for every exit code of a process."""
    return _table(
        ["exit code", "name"],
        ([str(code.value), f"`{code.name.lower()}`"] for code in lifecycle.ExitCode),
    )


def queues() -> str:
    """Return a row for every queue: those of all services, and the reply queues."""
    rows = [*topology.ALL, topology.reply_queue("<replica>")]
    return _table(["queue", "type", "bounds", "what it gives up goes to"], map(_queue_row, rows))


def _queue_row(queue: Queue) -> list[str]:
    name = re.sub(r"\.[0-9a-f]{8}$", ".<nonce>", queue.name)
    kind = f"{queue.kind}, {'exclusive' if queue.exclusive else 'durable'}"
    bounds = []
    if queue.max_length is not None:
        bounds.append(f"{queue.max_length:,} messages")
    if queue.max_length_bytes is not None:
        bounds.append(f"{queue.max_length_bytes // 2**20} MiB")
    if queue.message_ttl_seconds is not None:
        bounds.append(f"{queue.message_ttl_seconds:g} s old")
    if queue.delivery_limit is not None:
        bounds.append(f"{queue.delivery_limit} redeliveries")
    return [
        f"`{name}`",
        kind,
        ", ".join(bounds),
        f"`{queue.dead_letter_to}`" if queue.dead_letter_to else "",
    ]


def parameters() -> str:
    """Return a row for every parameter of a search or an embedding: values, effect, routes."""
    rows = [parameter for parameter in PARAMETERS if parameter.routes != (Route.SAMPLE,)]
    return _table(["parameter", "values", "effect", "works on"], map(_parameter_row, rows))


def _parameter_row(parameter: Parameter) -> list[str]:
    routes = ", ".join(route.name.lower() for route in parameter.routes)
    return [f"`{parameter.name}`", parameter.accepts, parameter.description, routes]


def commands() -> str:
    """Return a section for every command: usage, description, options."""
    with click.Context(cli.main, info_name="simile") as context:
        return "\n\n".join(_command(cli.main, context))


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    if command.hidden:
        return
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            if child is not None:
                with click.Context(child, info_name=name, parent=context) as inner:
                    yield from _command(child, inner)
        return
    usage = command.get_usage(context).removeprefix("Usage: ")
    yield f"## {context.command_path}"
    yield f"```\n{usage}\n```"
    yield inspect.cleandoc(command.help or "")
    if command.epilog is not None:
        _, _, examples = command.epilog.partition("Examples:\n")
        yield f"```sh\n{inspect.cleandoc(examples)}\n```"
    options = [option for option in command.params if isinstance(option, click.Option)]
    if options:
        yield _table(["option", "default", "meaning"], map(_option_row, options))


def _option_row(option: click.Option) -> list[str]:
    value = "" if option.is_flag else f" {option.make_metavar(click.Context(cli.main))}"
    # click has a private mark for "no default"; the default of a flag is obvious.
    shown = isinstance(option.default, str | int | float | Path) and not option.is_flag
    return [
        f"`{', '.join(option.opts)}{value}`",
        f"`{option.default}`" if shown else "",
        str(option.help),
    ]


BLOCKS: Final[Mapping[str, Callable[[], str]]] = {
    "settings-shared": lambda: settings(SharedSettings),
    "settings-upload": lambda: settings(UploadSettings),
    "settings-embedder": lambda: settings(EmbedderSettings),
    "settings-searcher": lambda: settings(SearcherSettings),
    "settings-index": lambda: settings(IndexSettings),
    "metrics-process": lambda: metrics(ProcessMetrics),
    "settings-client": lambda: settings(ClientSettings),
    "metrics-health": lambda: metrics(HealthMetrics),
    "metrics-release": lambda: metrics(ReleaseMetrics),
    "metrics-broker": lambda: metrics(BrokerMetrics),
    "metrics-build": lambda: metrics(BuildMetrics),
    "metrics-upload": lambda: metrics(UploadMetrics),
    "metrics-embedder": lambda: metrics(EmbedderMetrics),
    "metrics-searcher": lambda: metrics(SearcherMetrics),
    "errors-callers": caller_errors,
    "errors-operators": operator_errors,
    "exit-codes": exit_codes,
    "queues": queues,
    "commands": commands,
    "parameters": parameters,
}


def render(page: str) -> str:
    """Return the page with every generated block replaced; an unknown name is a KeyError."""

    def updated(block: re.Match[str]) -> str:
        return f"{block['start']}{BLOCKS[block['name']]()}\n{block['end']}"

    return _BLOCK.sub(updated, page)


def blocks_in(page: str) -> list[str]:
    """Return the names of the page's generated blocks."""
    return [block["name"] for block in _BLOCK.finditer(page)]


def main() -> None:
    """Write the generated parts of docs/ and openapi.json, setting names, the client's modules."""
    SETTING_NAMES.write_text(setting_names(), encoding="utf-8")
    api = openapi.FILE.read_text(encoding="utf-8")
    openapi.FILE.write_text(openapi.render(api), encoding="utf-8")
    for path in sorted(DOCS.glob("*.md")):
        page = path.read_text(encoding="utf-8")
        path.write_text(render(page), encoding="utf-8")
    client.main()


if __name__ == "__main__":
    main()

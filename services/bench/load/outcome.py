"""Reads the outcome of a request: its code, when to retry, and its stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from services.bench.load.http_client import Answer
from services.bench.run import SERVED, kind_of
from services.shared.json_text import read_json

TIMED_OUT: Final = "timed out"
_MAX_RETRY_SECONDS: Final = 30.0
_USUAL_RETRY_SECONDS: Final = 1.0
_RECONNECT_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Outcome:
    """Holds the outcome of a request.

    Attributes:
        code: the status and the problem's code.
        retry_seconds: how long a patient client waits; None where it need not wait.
        broken: the connection failed; a retry at once would only use CPU.
        stages: seconds by name.
    """

    code: str
    retry_seconds: float | None = None
    broken: bool = False
    stages: Mapping[str, float] = field(default_factory=dict)


def timed_out() -> Outcome:
    """Return the outcome of a timeout."""
    return Outcome(TIMED_OUT)


def unconnected(error: OSError) -> Outcome:
    """Return the outcome of a failed connection."""
    kind = type(error).__name__.removesuffix("Error")
    return Outcome(f"no answer ({kind})", _RECONNECT_SECONDS, broken=True)


def answered(answer: Answer) -> Outcome:
    """Return the outcome of an answer."""
    if answer.status == HTTPStatus.OK:
        return Outcome(SERVED, stages=_stages(answer.headers.get(b"server-timing", b"")))
    code = _code(answer)
    return Outcome(code, _retry(answer) if kind_of(code) == "refused" else None)


def _retry(answer: Answer) -> float:
    asked = answer.headers.get(b"retry-after", b"")
    seconds = float(asked) if asked.isdigit() else _USUAL_RETRY_SECONDS
    return min(seconds, _MAX_RETRY_SECONDS)


def _code(answer: Answer) -> str:
    try:
        code = read_json(answer.body).get("code", "")
    except (ValueError, AttributeError):
        code = ""
    return f"{answer.status} {code}".strip()


def _stages(server_timing: bytes) -> Mapping[str, float]:
    """Parse the header Server-Timing (name;dur=milliseconds) to seconds by stage."""
    stages = {}
    for entry in server_timing.decode("latin-1").split(","):
        name, _, duration = entry.strip().partition(";dur=")
        try:
            stages[name] = float(duration) / 1000
        except ValueError:
            continue  # a metric without a duration, or with more to it than Simile's have
    return stages

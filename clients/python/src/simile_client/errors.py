"""Defines the errors that the client raises.

`problems` has a class for each error code of the API, all of them `ApiError`.
"""

from __future__ import annotations

from simile_client.models import Problem


class SimileError(Exception):
    """Base of all errors of the client; `str(error)` says what happened and what to do next."""


class Unreachable(SimileError):
    """No server answers at the address, or its answer did not arrive in time."""


class UnexpectedAnswer(SimileError):
    """The answer is not one of Simile's API: another server, or an incompatible version."""


class ApiError(SimileError):
    """An error that Simile answered with; its subclasses are named for the code.

    Attributes:
        problem: the answer's body: code, status, title, detail, correlation id.
        retry_after_seconds: after how long a retry can help; None where it can't.
    """

    def __init__(self, problem: Problem, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{problem.detail} ({problem.code})")
        self.problem = problem
        self.retry_after_seconds = retry_after_seconds

    @property
    def code(self) -> str:
        """The stable name of the error."""
        return self.problem.code

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

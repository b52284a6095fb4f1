"""Admits queries by what they need: places for those that need an embedder, others for the rest."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

from services.shared.errors import Overloaded, RateLimited, SimileError
from services.upload.search.admission import Admission
from services.upload.search.queries import QueryLimits
from services.upload.search.reservations import Reservation
from services.upload.security.rate_limit import RateLimit

_LOOKS_PER_SECOND: Final = 100
"""Images read to see whether their vectors are remembered, while embedders take no more: some 5 %
of a core."""


class AdmissionControl:
    """The places of a replica, and the count of the queries that it admits and refuses."""

    def __init__(
        self,
        limits: QueryLimits,
        *,
        require_open: Callable[[bool], None],
        on_admission: Callable[[str], None],
    ) -> None:
        """Make the places.

        Args:
            limits: of the queries of this replica.
            require_open: raises where no query can be asked now; gets whether the query's request
                was let in before.
            on_admission: gets the code of each refusal, and ok for each query that is admitted.
        """
        self._require_open = require_open
        self._on_admission = on_admission
        # Apart, since slow embedders say nothing about queries that need none.
        self.embedding, self.searching = (
            Admission(max_in_flight=limits.max_in_flight, deadline_seconds=limits.deadline_seconds)
            for _ in range(2)
        )
        self._looks = RateLimit(_LOOKS_PER_SECOND, _LOOKS_PER_SECOND)

    @contextlib.contextmanager
    def reserve(
        self, caller: str, within_seconds: float, *, may_be_known: bool
    ) -> Iterator[Reservation]:
        """Keep a place while a query's image is on its way.

        Args:
            caller: the API key or the address that asks.
            within_seconds: how long the caller will wait.
            may_be_known: the image's vector may be remembered, so that it needs no embedder.

        Raises:
            Overloaded, or what require_open raises: at once, so that refusing is cheap.
        """
        with contextlib.ExitStack() as places:
            with self._refusing():
                self._require_open(False)  # noqa: FBT003 (a callable takes it by place)
                try:
                    reservation = places.enter_context(
                        self.embedding.reserve(caller, within_seconds)
                    )
                except Overloaded:
                    if not (may_be_known and self._may_look()):
                        raise
                    reservation = Reservation(caller, waits=False)
            yield reservation

    @contextlib.asynccontextmanager
    async def admit_embedding(
        self, reservation: Reservation, wait_seconds: float
    ) -> AsyncIterator[None]:
        """Take a place for a query that needs an embedder, when one is free. Raises Overloaded."""
        async with contextlib.AsyncExitStack() as place:
            with self._refusing():
                self._require_open(True)  # noqa: FBT003 (a callable takes it by place)
                await place.enter_async_context(self.embedding.acquire(reservation, wait_seconds))
            self._on_admission("ok")
            yield

    @contextlib.contextmanager
    def admit_search(self, within_seconds: float) -> Iterator[None]:
        """Take a place for a query that needs no embedder, at once. Raises Overloaded."""
        with contextlib.ExitStack() as place:
            with self._refusing():
                place.enter_context(self.searching.acquire_now(within_seconds))
            self._on_admission("ok")
            with self.searching.measure():
                yield

    def _may_look(self) -> bool:
        try:
            self._looks.take("")
        except RateLimited:
            return False
        return True

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        """Count the refusal that is raised inside."""
        try:
            yield
        except SimileError as refusal:
            self._on_admission(refusal.code)
            raise

"""Admits queries by kind: slots for queries that need an embedder, and slots for others."""

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
"""Images read per second to look up cached vectors while the embedders are full: some 5 %
of a core."""


class AdmissionControl:
    """The slots of a replica, and the count of admitted and refused queries."""

    def __init__(
        self,
        limits: QueryLimits,
        *,
        require_open: Callable[[bool], None],
        on_admission: Callable[[str], None],
    ) -> None:
        """Create the slots.

        Args:
            limits: of this replica's queries.
            require_open: raises if no query can be sent now; gets whether the query's request
                was admitted before.
            on_admission: gets the code of each refusal, and ok for each admitted query.
        """
        self._require_open = require_open
        self._on_admission = on_admission
        # Separate, since slow embedders do not affect queries that need none.
        self.embedding, self.searching = (
            Admission(max_in_flight=limits.max_in_flight, deadline_seconds=limits.deadline_seconds)
            for _ in range(2)
        )
        self._looks = RateLimit(_LOOKS_PER_SECOND, _LOOKS_PER_SECOND)

    @contextlib.contextmanager
    def reserve(
        self, caller: str, within_seconds: float, *, may_be_known: bool
    ) -> Iterator[Reservation]:
        """Reserve a slot while a query's image arrives.

        Args:
            caller: the API key or the address of the sender.
            within_seconds: how long the caller waits.
            may_be_known: the image's vector may be cached, so that it needs no embedder.

        Raises:
            Overloaded, and the errors of require_open: at once, so that refusals are cheap.
        """
        with contextlib.ExitStack() as held:
            with self._refusing():
                self._require_open(False)  # noqa: FBT003 (a callable takes it by place)
                try:
                    reservation = held.enter_context(self.embedding.reserve(caller, within_seconds))
                except Overloaded:
                    if not (may_be_known and self._may_look()):
                        raise
                    reservation = Reservation(caller, waits=False)
            yield reservation

    @contextlib.asynccontextmanager
    async def admit_embedding(
        self, reservation: Reservation, wait_seconds: float
    ) -> AsyncIterator[None]:
        """Take a slot for a query that needs an embedder, when one is free. Raises Overloaded."""
        async with contextlib.AsyncExitStack() as held:
            with self._refusing():
                self._require_open(True)  # noqa: FBT003 (a callable takes it by place)
                await held.enter_async_context(self.embedding.acquire(reservation, wait_seconds))
            self._on_admission("ok")
            yield

    async def admit_batch(self, batch: str, wait_seconds: float) -> None:
        """Wait until a batch may send its images: a slot for one of them is free.

        Raises Overloaded if none becomes free in time, or what require_open raises.
        """
        with self._refusing():
            self._require_open(False)  # noqa: FBT003 (a callable takes it by place)
            async with self.embedding.acquire(Reservation(batch=batch), wait_seconds):
                pass

    @contextlib.asynccontextmanager
    async def admit_search(self, batch: str, within_seconds: float) -> AsyncIterator[None]:
        """Take a slot for a query that needs no embedder. Raises Overloaded.

        A query of a batch waits for its slot; others are refused at once if none is free.
        """
        async with contextlib.AsyncExitStack() as held:
            with self._refusing():
                if batch:
                    reservation = Reservation(batch=batch)
                    slot = self.searching.acquire(reservation, within_seconds)
                    await held.enter_async_context(slot)
                else:
                    held.enter_context(self.searching.acquire_now(within_seconds))
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

"""Sends a steady load of queries whose answers are known, and checks the answers.

Each query is an image of the collection, so its own item must be among its neighbours, at
distance 0. The rate of queries does not depend on the answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

SLACK_SECONDS: Final = 5.0
"""The time by which an answer may exceed its deadline on a busy machine."""

NO_ANSWER: Final = "no answer"
CONNECTION: Final = "connection"
"""The outcome of a query whose upload was killed: the caller sees a broken socket."""

_SAME: Final = 1e-2
_OK: Final = 200


@dataclass(frozen=True, slots=True)
class Outcome:
    """Holds the outcome of a query; times are of time.monotonic()."""

    begun: float
    ended: float
    code: str
    """The code: ok, an error's code, CONNECTION, or NO_ANSWER."""
    status: int = 0
    retry_after: str | None = None
    wrong: str = ""

    @property
    def seconds(self) -> float:
        """Return the seconds from the query to its outcome."""
        return self.ended - self.begun


class Load:
    """Sends queries to the uploads in turn while `running`, and records each outcome."""

    def __init__(
        self,
        urls: Sequence[str],
        images: Mapping[bytes, str],
        *,
        per_second: float = 20.0,
        deadline_seconds: float,
    ) -> None:
        """Set up a load that is not running yet.

        Args:
            urls: The base URLs of the uploads.
            images: The id of the item for the content of each image.
            per_second: The rate of queries.
            deadline_seconds: The deadline that the uploads apply.
        """
        self.outcomes: list[Outcome] = []
        self._urls = itertools.cycle(urls)
        self._images = itertools.cycle(images.items())
        self._interval_seconds = 1 / per_second
        self._patience_seconds = deadline_seconds + SLACK_SECONDS
        self._waiting: dict[asyncio.Task[None], float] = {}

    @property
    def waiting(self) -> int:
        """Return the number of queries in flight."""
        return len(self._waiting)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send until the block ends, then wait for every answer."""
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._patience_seconds),
            connector=aiohttp.TCPConnector(limit=0),
        ) as session:
            sending = asyncio.create_task(self._send(session))
            try:
                yield
            finally:
                sending.cancel()
                await asyncio.gather(sending, *self._waiting, return_exceptions=True)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds, for at most a minute."""
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.01)

    async def answered(self, count: int = 20) -> None:
        """Wait until `count` successive queries, all sent from now on, were answered."""
        begun = time.monotonic()

        def good() -> bool:
            last = self.outcomes[-count:]
            return len(last) == count and all(
                one.code == "ok" and one.begun > begun for one in last
            )

        await self.until(good)

    def settled(self, moment: float) -> bool:
        """Return whether no query that was sent before that moment is in flight."""
        return all(begun > moment for begun in self._waiting.values())

    def judge(self, *allowed: str) -> Counter[str]:
        """Return the number of outcomes by code; fail on wrong, missing or other outcomes."""
        codes = Counter(outcome.code for outcome in self.outcomes)
        wrong = [outcome.wrong for outcome in self.outcomes if outcome.wrong]
        assert not wrong, f"{len(wrong)} wrong answers of {codes}: {wrong[:3]}"
        assert codes[NO_ANSWER] == 0, f"queries hung: {codes}"
        others = {code for code in codes if code not in {"ok", *allowed}}
        assert not others, f"{others} of {codes}"
        return codes

    def back_after(self, moment: float) -> float:
        """Return the seconds from that moment to the first query after which all were answered."""
        asked = sorted(
            (one for one in self.outcomes if one.begun >= moment), key=lambda one: one.begun
        )
        good = list(itertools.takewhile(lambda one: one.code == "ok", reversed(asked)))
        assert good, "the service never came back"
        return good[-1].begun - moment

    def settled_after(self, moment: float) -> float:
        """Return the seconds until the last query that was in flight at that moment ended."""
        caught = [one for one in self.outcomes if one.begun < moment < one.ended]
        assert caught, "no query was on its way"
        return max(one.ended for one in caught) - moment

    async def _send(self, session: aiohttp.ClientSession) -> None:
        for number in itertools.count():
            if number == 0:
                started = time.monotonic()
            await asyncio.sleep(started + number * self._interval_seconds - time.monotonic())
            task = asyncio.create_task(self._ask(session))
            self._waiting[task] = time.monotonic()
            task.add_done_callback(self._waiting.pop)

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        image, item_id = next(self._images)
        begun = time.monotonic()
        code, status, retry_after, wrong = NO_ANSWER, 0, None, ""
        try:
            async with session.post(f"{next(self._urls)}/v1/search", data=image) as answer:
                status, retry_after = answer.status, answer.headers.get("Retry-After")
                body = await answer.json(content_type=None)
                code = "ok" if status == _OK else body["code"]
                wrong = _wrong(body, item_id) if status == _OK else ""
        except TimeoutError:
            pass
        except aiohttp.ClientError:
            code = CONNECTION
        self.outcomes.append(Outcome(begun, time.monotonic(), code, status, retry_after, wrong))


def _wrong(answer: Mapping[str, Any], item_id: str) -> str:
    """Describe the error in the answer to the image of that item, or return an empty string."""
    found = {one["item_id"]: one["distance"] for one in answer["neighbors"]}
    if found.get(item_id, 2.0) > _SAME:
        return f"{item_id} is at {found.get(item_id)} of {found}"
    distances = list(found.values())
    return "" if distances == sorted(distances) else f"not by distance: {distances}"

"""Every queue name and argument. A queue's arguments can't change once it is declared.

What operators tune goes into broker policies; a changed argument needs a new queue name.
"""

from __future__ import annotations

import secrets
from typing import Final

from services.shared.messaging.broker import Queue

LONGEST_DEADLINE_SECONDS: Final = 60.0
"""No query may wait longer; the interactive queues drop what is older."""


def _dead(name: str) -> Queue:
    return Queue(name=f"{name}.dead", kind="quorum", max_length=10_000)


EMBED_DEAD: Final = _dead("simile.embed")
EMBED_BULK_DEAD: Final = _dead("simile.embed.bulk")
SEARCH_DEAD: Final = _dead("simile.search")

# Interactive queues have no dead-letter exchange: expiry would fill it with images.
EMBED: Final = Queue(
    name="simile.embed",
    max_length=1_000,
    max_length_bytes=512 * 2**20,
    message_ttl_seconds=LONGEST_DEADLINE_SECONDS,
)
EMBED_BULK: Final = Queue(
    name="simile.embed.bulk",
    kind="quorum",
    max_length=2_000,
    max_length_bytes=1024 * 2**20,
    delivery_limit=3,
    dead_letter_to=EMBED_BULK_DEAD.name,
)
SEARCH: Final = Queue(
    name="simile.search", max_length=10_000, message_ttl_seconds=LONGEST_DEADLINE_SECONDS
)

ALL: Final = (EMBED_DEAD, EMBED_BULK_DEAD, SEARCH_DEAD, EMBED, EMBED_BULK, SEARCH)
"""What every service declares at start, dead-letter queues first."""


def reply_queue(replica: str) -> Queue:
    """A replica's own queue for answers, under a fresh name at every call.

    Fresh, since after a half-open connection the broker holds the old exclusive queue locked.
    """
    return Queue(name=f"simile.reply.{replica}.{secrets.token_hex(4)}", exclusive=True)


def dead_letter_queue(queue: str) -> str:
    """Where a worker publishes a message of `queue` that can never be handled."""
    return f"{queue}.dead"

"""Defines the name and the arguments of every queue.

A queue's arguments can't change once it is declared: a changed argument needs a new name. Values
for operators to tune belong in broker policies.
"""

from __future__ import annotations

import secrets
from typing import Final

from services.shared.messaging.broker import Queue

MAX_DEADLINE_SECONDS: Final = 60.0
"""No query may wait longer; the interactive queues drop older messages."""


# Classic, since `simile quarantine list` requeues every record: a quorum queue counts that, and
# drops a message that was requeued too often.
QUARANTINE: Final = Queue(
    name="simile.quarantine",
    max_length=1_000,
    max_length_bytes=256 * 2**20,
    drops_oldest=True,
)

# Holds only messages that no embedder could quarantine.
EMBED_BULK_DEAD: Final = Queue(name="simile.embed.bulk.dead", kind="quorum", max_length=10_000)

# Interactive queues have no dead-letter exchange: expiry would fill it with images.
EMBED: Final = Queue(
    name="simile.embed",
    max_length=1_000,
    max_length_bytes=512 * 2**20,
    message_ttl_seconds=MAX_DEADLINE_SECONDS,
)
EMBED_BULK: Final = Queue(
    name="simile.embed.bulk",
    kind="quorum",
    max_length=2_000,
    max_length_bytes=1024 * 2**20,
    delivery_limit=3,
    dead_letter_to=EMBED_BULK_DEAD.name,
)
# Quorum, since it counts how often a message was requeued: an embedder takes one message of it at
# a time, so that each return is a crash with this message. The limit is far above an embedder's.
EMBED_SUSPECTS: Final = Queue(
    name="simile.embed.suspects",
    kind="quorum",
    max_length=2_000,
    max_length_bytes=512 * 2**20,
    delivery_limit=20,
)
SEARCH: Final = Queue(
    name="simile.search", max_length=10_000, message_ttl_seconds=MAX_DEADLINE_SECONDS
)

ALL: Final = (QUARANTINE, EMBED_BULK_DEAD, EMBED_SUSPECTS, EMBED, EMBED_BULK, SEARCH)
"""The queues that every service declares at start, dead-letter queues first."""


def reply_queue(replica: str) -> Queue:
    """Return a replica's own queue for answers, with a fresh name at every call.

    After a half-open connection the broker keeps the old exclusive queue locked.
    """
    return Queue(name=f"simile.reply.{replica}.{secrets.token_hex(4)}", exclusive=True)

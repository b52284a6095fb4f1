"""Every queue name and argument. A queue's arguments can't change once it is declared.

What operators tune goes into broker policies; a changed argument needs a new queue name.
"""

from __future__ import annotations

import secrets
from typing import Final

from services.shared.messaging.broker import Queue

LONGEST_DEADLINE_SECONDS: Final = 60.0
"""No query may wait longer; the interactive queues drop what is older."""


# Classic, since looking into it gives everything back: a quorum queue counts that, and drops what
# came back too often.
QUARANTINE: Final = Queue(
    name="simile.quarantine",
    max_length=1_000,
    max_length_bytes=256 * 2**20,
    drops_oldest=True,
)

# Only what no embedder could set aside gets here.
EMBED_BULK_DEAD: Final = Queue(name="simile.embed.bulk.dead", kind="quorum", max_length=10_000)

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
# Quorum, since it counts how often a message came back: an embedder takes one at a time, so each
# return is a death with this one in hand. The limit is far above what an embedder lets pass.
EMBED_SUSPECTS: Final = Queue(
    name="simile.embed.suspects",
    kind="quorum",
    max_length=2_000,
    max_length_bytes=512 * 2**20,
    delivery_limit=20,
)
SEARCH: Final = Queue(
    name="simile.search", max_length=10_000, message_ttl_seconds=LONGEST_DEADLINE_SECONDS
)

ALL: Final = (QUARANTINE, EMBED_BULK_DEAD, EMBED_SUSPECTS, EMBED, EMBED_BULK, SEARCH)
"""What every service declares at start, dead-letter queues first."""


def reply_queue(replica: str) -> Queue:
    """A replica's own queue for answers, under a fresh name at every call.

    Fresh, since after a half-open connection the broker holds the old exclusive queue locked.
    """
    return Queue(name=f"simile.reply.{replica}.{secrets.token_hex(4)}", exclusive=True)

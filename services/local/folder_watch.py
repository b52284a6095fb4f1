"""Notices changes of a folder's files: by the operating system, else by looking now and then."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

import structlog

from services.searcher.build.source.ignoring import IGNORE_FILE
from services.shared.errors import MissingExtra

_log = structlog.get_logger(__name__)

_REST_MS: Final = 500
"""Files that are being copied change again within this time."""

_MAX_WAIT_MS: Final = 10_000
RESCAN_MS: Final = 600_000
"""Mounts, and changes that another machine makes on a network disk, are reported by no system."""

_POLL_MS: Final = 30_000
_ABSENT_SECONDS: Final = 1.0


def require_library() -> None:
    """Raise MissingExtra where the library for it is not installed."""
    if importlib.util.find_spec("watchfiles") is None:
        message = "--watch needs watchfiles: pip install 'simile-search[watch]'"
        raise MissingExtra(message)


async def changes(
    folder: Path, *, rescan_ms: int = RESCAN_MS, retry_seconds: float = _ABSENT_SECONDS
) -> AsyncGenerator[None]:
    """Yield when files have changed and rested for a moment, and now and then without a change.

    Args:
        folder: the folder, which is watched at any depth.
        rescan_ms: after how many milliseconds without a change to yield all the same.
        retry_seconds: after how many seconds to watch again, once the folder cannot be watched.
    """
    import watchfiles  # noqa: PLC0415 (an extra)

    def counts(_: watchfiles.Change, path: str) -> bool:
        parts = Path(path).relative_to(folder).parts if path.startswith(f"{folder}/") else ()
        return parts == (IGNORE_FILE,) or not any(part.startswith(".") for part in parts)

    polls: bool | None = None
    while True:
        watching = watchfiles.awatch(
            folder, watch_filter=counts, debounce=_MAX_WAIT_MS, step=_REST_MS,
            rust_timeout=rescan_ms, yield_on_timeout=True, force_polling=polls,
            poll_delay_ms=_POLL_MS, ignore_permission_denied=True,
        )  # fmt: skip
        try:
            async for _ in watching:
                yield
        except FileNotFoundError:  # the folder is lost, or not drawn yet
            await asyncio.sleep(retry_seconds)
        except OSError as error:  # more folders than the system watches, for instance
            _log.warning("the system reports no changes: the folder is read now and then",
                         action="watch_polls", folder=str(folder), why=str(error))  # fmt: skip
            await asyncio.sleep(retry_seconds)
            polls = True

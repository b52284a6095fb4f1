"""Follows the active versions: opens a new one beside the old one, and refuses a broken one."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Generic, NamedTuple, TypeVar

import structlog

from services.shared.errors import IndexCorrupt, SimileError
from services.shared.volume.manifest import Manifest
from services.shared.volume.volume import Volume

_log = structlog.get_logger(__name__)


V = TypeVar("V")
"""A version that is open for reading."""


class _Refusal(NamedTuple):
    version: str
    reason: str
    """Text: the error itself would hold what its stack holds open, and thereby the lease."""


class Following(Generic[V]):
    """Opens the versions that become active, and remembers those that can't be opened.

    The caller keeps what is open. While the active version is refused, the caller keeps the old
    one, which goes on answering. Several threads may call at once.
    """

    def __init__(
        self,
        volume: Volume,
        open_version: Callable[[str, str], V],
        *,
        on_refusal: Callable[[str, SimileError], None] = lambda _collection, _error: None,
    ) -> None:
        """Follow the collections of a volume; nothing is read yet.

        Args:
            volume: holds the versions.
            open_version: checks and opens a version, given its collection and its name; raises
                IndexCorrupt where that fails.
            on_refusal: called once for each refused version, with its collection and the error.
        """
        self._volume = volume
        self._open_version = open_version
        self._on_refusal = on_refusal
        self._refusals: dict[str, _Refusal] = {}

    @property
    def refused(self) -> AbstractSet[str]:
        """The collections whose active version is refused."""
        return self._refusals.keys()

    def reason(self, collection: str) -> str:
        """Return why the active version is refused; empty where it is not."""
        refusal = self._refusals.get(collection)
        return "" if refusal is None else refusal.reason

    def newer(
        self,
        collection: str,
        answering: str | None,
        *,
        admits: Callable[[Manifest], bool] = lambda _manifest: True,
        retry: bool = False,
    ) -> V | None:
        """Open the active version where it is not open yet. Blocking.

        Args:
            collection: the collection's name.
            answering: the version that is open now; only its name, since the thread that runs
                this could hold the version itself a moment longer than its last user.
            admits: returns whether a new version with this manifest is opened.
            retry: a refused version is tried again, since it may have been repaired.

        Returns:
            The new version; None where the open one is active, or the active one is refused or
            not admitted.

        Raises:
            NoIndex: no version is active.
            UnknownCollection: the collection does not exist.
            OSError: the machine is at fault, not the version.
        """
        try:
            version = self._volume.active(collection)
        except IndexCorrupt as error:
            self.refuse(collection, "", error, answering=answering)
            return None
        if answering == version:
            self.forget(collection)
            return None
        refusal = self._refusals.get(collection)
        if refusal is not None and refusal.version == version and not retry:
            return None
        return self._opened(collection, version, answering, admits)

    def _opened(
        self,
        collection: str,
        version: str,
        answering: str | None,
        admits: Callable[[Manifest], bool],
    ) -> V | None:
        try:
            if not admits(self._volume.manifest(collection, version)):
                return None
            opened = self._open_version(collection, version)
        except SimileError as error:
            self.refuse(collection, version, error, answering=answering)
            return None
        except (OSError, MemoryError):
            raise  # not the version's fault but the machine's: a new process tries again
        except Exception as error:  # noqa: BLE001 (one collection must not end the service of all)
            _log.exception("an index version can't be opened", collection=collection)
            unforeseen = IndexCorrupt(f"it can't be opened: {error!r}")
            self.refuse(collection, version, unforeseen, answering=answering)
            return None
        self.forget(collection)
        return opened

    def refuse(
        self, collection: str, version: str, error: SimileError, *, answering: str | None = None
    ) -> None:
        """Open this version no more; log it, unless it is refused already.

        Args:
            collection: the collection's name.
            version: the version's name; empty where ACTIVE names none.
            error: the reason.
            answering: the version that answers meanwhile.
        """
        refusal = self._refusals.get(collection)
        self._refusals[collection] = _Refusal(version, str(error))
        if refusal is not None and refusal.version == version:
            return
        self._on_refusal(collection, error)
        _log.error(
            str(error),
            action=error.code,
            collection=collection,
            refused_version=version,
            answering_version=answering,
        )

    def forget(self, collection: str) -> None:
        """Refuse no version of this collection any more."""
        self._refusals.pop(collection, None)

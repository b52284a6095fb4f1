"""Puts together what stands between the network and the routes, as the settings say."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from services.upload.access import Access
from services.upload.answer_headers import AnswerHeaders
from services.upload.api_keys import ApiKey, read_keys
from services.upload.certificate import Certificate
from services.upload.metrics import UploadMetrics
from services.upload.rate_limit import RateLimit
from services.upload.settings import UploadSettings
from services.upload.watched import Watched


class KeyFile:
    """The keys of a file, as it was read last."""

    def __init__(self, file: Path) -> None:
        """Nothing is read yet."""
        self._file = file
        self._keys: tuple[ApiKey, ...] = ()

    def keys(self) -> Iterable[ApiKey]:
        """The keys that are known now."""
        return self._keys

    def read(self) -> None:
        """Read the file. Raises OSError, ValueError or InvalidSettings, having changed nothing."""
        self._keys = read_keys(self._file.read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Guard:
    """Who may ask, what browsers are told, the TLS of the port, and the files behind them."""

    access: Access
    headers: AnswerHeaders
    tls: ssl.SSLContext | None
    files: tuple[Watched, ...]

    @classmethod
    def of(cls, settings: UploadSettings, metrics: UploadMetrics) -> Guard:
        """Read the files. Raises InvalidSettings for one that can't be."""

        def count(what: str, result: str) -> None:
            metrics.reloads.labels(what=what, result=result).inc()

        files, keys, tls = list[Watched](), None, None
        if settings.api_keys_file is not None:
            held = KeyFile(settings.api_keys_file)
            files.append(Watched("keys", [settings.api_keys_file], held.read, count))
            keys = held.keys
        if settings.tls_cert_file is not None and settings.tls_key_file is not None:
            pair = settings.tls_cert_file, settings.tls_key_file
            certificate = Certificate(*pair)
            files.append(Watched("certificate", pair, certificate.read, count))
            tls = certificate.context
        access = Access(
            keys, RateLimit(settings.rate_per_second, settings.rate_burst), _uses(metrics)
        )
        return cls(access, AnswerHeaders(settings.origins), tls, tuple(files))

    async def watch(self) -> None:
        """Follow the files for ever."""
        async with asyncio.TaskGroup() as group:
            for file in self.files:
                group.create_task(file.watch())
            await asyncio.Event().wait()


def _uses(metrics: UploadMetrics) -> Callable[[str], None]:
    return lambda name: metrics.key_uses.labels(key=name).inc()

"""Builds the checks of requests from the settings."""

from __future__ import annotations

import ssl
import stat
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.shared.errors import InvalidSettings
from services.upload.http.security_headers import AnswerHeaders
from services.upload.metrics import UploadMetrics
from services.upload.security.access import Access
from services.upload.security.api_keys import ApiKey, parse_keys
from services.upload.security.header_checks import HeaderChecks
from services.upload.security.rate_limit import RateLimit
from services.upload.security.reloading_file import ReloadingFile
from services.upload.settings import UploadSettings

_ONLY_NAMED: Final = "only its readable keys are valid now"
_MAX_KEY_FILE_BYTES: Final = 4 * 2**20


class KeyFile:
    """The keys of a file at its last reading: exactly those that it names.

    A key that was removed from the file is revoked, whatever else is wrong with the file: if the
    earlier keys stayed, a removed key would stay valid.
    """

    def __init__(self, file: Path) -> None:
        """Create the object without reading the files."""
        self._file = file
        self._keys: tuple[ApiKey, ...] = ()
        self.faults = 0
        """The number of unreadable lines; 1 if the file is unreadable or has no key."""

    def keys(self) -> tuple[ApiKey, ...]:
        """The keys known now."""
        return self._keys

    def read(self) -> None:
        """Read the file. Raises OSError or InvalidSettings; the readable keys then apply."""
        self._keys, self.faults = (), 1
        lines = parse_keys(self._content())
        self._keys, self.faults = lines.keys, len(lines.broken) or not lines.keys
        lines.require_sound()

    def _content(self) -> bytes:
        seen = self._file.stat()
        # Other kinds of files might never end, or wait for a writer.
        if not stat.S_ISREG(seen.st_mode) or seen.st_size > _MAX_KEY_FILE_BYTES:
            message = f"it is no file of up to {_MAX_KEY_FILE_BYTES} bytes"
            raise InvalidSettings(message)
        return self._file.read_bytes()


class Certificate:
    """A TLS context; new connections get the latest certificate."""

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        """Create the object without reading the files."""
        self._cert_file = cert_file
        self._key_file = key_file
        self.context = _context()

    def read(self) -> None:
        """Read both files. Raises OSError (ssl.SSLError is one) without any change."""
        # Tried on another context first: half a pair would leave this one without any key.
        self._load(_context())
        self._load(self.context)

    def _load(self, context: ssl.SSLContext) -> None:
        # With a password an encrypted key is an error instead of a prompt on the terminal.
        context.load_cert_chain(self._cert_file, self._key_file, password="")


def _context() -> ssl.SSLContext:
    return ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)


@dataclass(frozen=True, slots=True)
class Security:
    """Holds access, checks of headers, security headers, TLS, and the files behind them."""

    access: Access
    header_checks: HeaderChecks
    headers: AnswerHeaders
    tls: ssl.SSLContext | None
    files: tuple[ReloadingFile, ...]

    @classmethod
    def of(cls, settings: UploadSettings, metrics: UploadMetrics) -> Security:
        """Read the files. Raises InvalidSettings for an unreadable file."""

        def count(what: str, result: str) -> None:
            metrics.reloads.labels(what=what, result=result).inc()

        files, keys, tls = list[ReloadingFile](), None, None
        if settings.api_keys_file is not None:
            held = KeyFile(settings.api_keys_file)
            files.append(
                ReloadingFile(
                    "keys", [settings.api_keys_file], held.read, count, otherwise=_ONLY_NAMED
                )
            )
            keys = held.keys
            metrics.api_keys.set_function(lambda: len(held.keys()))
            metrics.api_key_faults.set_function(lambda: held.faults)
        if settings.tls_cert_file is not None and settings.tls_key_file is not None:
            pair = settings.tls_cert_file, settings.tls_key_file
            certificate = Certificate(*pair)
            files.append(ReloadingFile("certificate", pair, certificate.read, count))
            tls = certificate.context
        access = Access(
            keys, RateLimit(settings.rate_per_second, settings.rate_burst), _uses(metrics)
        )
        checks = HeaderChecks(
            settings.hosts, settings.only_own_hosts, keys is None, settings.origins
        )
        return cls(access, checks, AnswerHeaders(settings.origins), tls, tuple(files))

    def stages(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Return the stages that watch the files, by name."""
        return {f"guard {file.what}": file.watch() for file in self.files}


def _uses(metrics: UploadMetrics) -> Callable[[str], None]:
    return lambda name: metrics.key_uses.labels(key=name).inc()

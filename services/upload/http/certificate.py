"""The certificate that the HTTP server shows, which may be renewed while it runs."""

from __future__ import annotations

import ssl
from pathlib import Path


class Certificate:
    """A TLS context; new connections get the certificate that was read last."""

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        """Nothing is read yet."""
        self._cert_file = cert_file
        self._key_file = key_file
        self.context = _context()

    def read(self) -> None:
        """Read both. Raises OSError (ssl.SSLError is one), and then has changed nothing."""
        # Tried elsewhere first: half a pair would leave the context without any key.
        self._load(_context())
        self._load(self.context)

    def _load(self, context: ssl.SSLContext) -> None:
        # A password, so that an encrypted key is an error and not a question on the terminal.
        context.load_cert_chain(self._cert_file, self._key_file, password="")


def _context() -> ssl.SSLContext:
    return ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)

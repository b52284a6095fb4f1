"""The certificates for amqps: RabbitMQ's, and a client certificate of ours."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.shared.errors import InvalidSettings

_PERMANENT: Final = ("CERTIFICATE", "UNKNOWN_CA", "WRONG_VERSION_NUMBER")
"""OpenSSL's reasons for a wrong certificate, or for a port without TLS."""


@dataclass(frozen=True, slots=True)
class AmqpTls:
    """Names PEM files.

    Attributes:
        ca_file: the CA of RabbitMQ's certificate; None trusts the system's CAs.
        cert_file: a client certificate.
        key_file: the key of `cert_file`.
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @property
    def given(self) -> bool:
        """Return whether any file was set."""
        return (self.ca_file or self.cert_file or self.key_file) is not None

    def context(self) -> ssl.SSLContext:
        """Read the files and return a context that always checks the server's name.

        Call it for each connection, so that renewed files are used.

        Raises:
            InvalidSettings: a file can't be used; the message names the setting.
        """
        if self.key_file is not None and self.cert_file is None:
            message = "SIMILE_AMQP_KEY_FILE needs SIMILE_AMQP_CERT_FILE beside it"
            raise InvalidSettings(message)
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            message = f"SIMILE_AMQP_CA_FILE {self.ca_file} holds no CA that can be read: {error}"
            raise InvalidSettings(message) from None
        if self.cert_file is not None:
            try:
                # With a password, OpenSSL raises for an encrypted key; without, it would prompt.
                context.load_cert_chain(self.cert_file, self.key_file, password="")
            except OSError as error:
                message = (
                    f"SIMILE_AMQP_CERT_FILE {self.cert_file} and SIMILE_AMQP_KEY_FILE "
                    f"{self.key_file} are not a certificate and its key: {error}"
                )
                raise InvalidSettings(message) from None
        return context


def certificate_error(error: BaseException | None) -> ssl.SSLError | None:
    """Return the TLS error behind an error where another attempt would fail, too, or None.

    Other TLS errors pass: a broker that stops during a handshake also causes one.
    """
    while error is not None:
        if isinstance(error, ssl.SSLError) and any(word in str(error) for word in _PERMANENT):
            return error
        error = error.__cause__
    return None

"""How RabbitMQ is trusted, and how we show ourselves to it, over amqps."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.shared.errors import InvalidSettings

_UNMENDABLE: Final = ("CERTIFICATE", "UNKNOWN_CA", "WRONG_VERSION_NUMBER")
"""OpenSSL's reasons that speak of certificates, or of a port that speaks no TLS."""


@dataclass(frozen=True, slots=True)
class AmqpTls:
    """PEM files. ca_file: None trusts the system's CAs; the other two go together."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @property
    def given(self) -> bool:
        """Whether any of it was set."""
        return (self.ca_file or self.cert_file or self.key_file) is not None

    def context(self) -> ssl.SSLContext:
        """A context with what the files hold now: made for each connection, so renewals are seen.

        The server's name is always checked. Raises InvalidSettings, naming the setting.
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
                # A password, so that an encrypted key is an error and not a question.
                context.load_cert_chain(self.cert_file, self.key_file, password="")
            except OSError as error:
                message = (
                    f"SIMILE_AMQP_CERT_FILE {self.cert_file} and SIMILE_AMQP_KEY_FILE "
                    f"{self.key_file} are no certificate and its key: {error}"
                )
                raise InvalidSettings(message) from None
        return context


def distrust(error: BaseException | None) -> ssl.SSLError | None:
    """Return the TLS fault behind an error, where a retry can't help.

    Not every SSLError: a handshake that a dying broker breaks off is one, too.
    """
    while error is not None:
        if isinstance(error, ssl.SSLError) and any(word in str(error) for word in _UNMENDABLE):
            return error
        error = error.__cause__
    return None

"""Distinguishes a RabbitMQ that refuses this process from one that can't be reached."""

from __future__ import annotations

import traceback
from typing import Final

import aiormq
from pamqp import commands as spec

from services.shared.errors import BrokerUnavailable, InvalidSettings
from services.shared.messaging.rabbitmq.tls import certificate_error

_REFUSED: Final = (
    aiormq.exceptions.AuthenticationError,
    aiormq.exceptions.ProbableAuthenticationError,
    aiormq.exceptions.ChannelPreconditionFailed,
    aiormq.exceptions.ChannelAccessRefused,
)
_REFUSALS: Final = ("NOT_ALLOWED", "ACCESS_REFUSED")
_STARTING: Final = " is down"
"""RabbitMQ's text about a vhost that it will open soon ends so."""


def refusal_in(error: BaseException, connection: str) -> BrokerUnavailable | None:
    """Return the reason for a failed attempt to connect that only a change of settings can end.

    Such reasons are credentials, a vhost, a permission, a queue's arguments, a certificate, or a
    file of ours.

    Args:
        error: raised by the attempt.
        connection: the connection's name, for the message.

    Returns:
        None where RabbitMQ can't be reached: then it is worth to try again.
    """
    if isinstance(error, BrokerUnavailable):
        return error
    if isinstance(error, InvalidSettings):
        # The file was readable at the start: it may be being renewed.
        return BrokerUnavailable(str(error))
    text = str(error) if isinstance(error, _REFUSED) else _close_text(error)
    if text is not None:
        reason = f"RabbitMQ refuses ({connection}): {text}; check SIMILE_AMQP_URL"
        return BrokerUnavailable(reason)
    untrusted = certificate_error(error)
    if untrusted is None:
        return None
    reason = (
        f"TLS with RabbitMQ failed ({connection}): {untrusted}; check SIMILE_AMQP_CA_FILE, "
        "SIMILE_AMQP_CERT_FILE and the host of SIMILE_AMQP_URL"
    )
    return BrokerUnavailable(reason)


def _close_text(error: BaseException) -> str | None:
    """Return the text with which RabbitMQ refused a connection that was being opened, or None.

    aiormq reports such a frame as unexpected, without its text.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        answer = frame.f_locals.get("frame")
        if isinstance(answer, spec.Connection.Close):
            text = str(answer.reply_text)
            refused = text.startswith(_REFUSALS) and not text.endswith(_STARTING)
            return text if refused else None
    return None

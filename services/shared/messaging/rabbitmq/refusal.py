"""Distinguishes a RabbitMQ that refuses this process from an unreachable RabbitMQ."""

from __future__ import annotations

import traceback
from typing import Final

import aiormq
from pamqp import commands as spec

from services.shared.errors import BrokerUnavailable, InvalidSettings
from services.shared.messaging.rabbitmq.tls import distrust

_REFUSED: Final = (
    aiormq.exceptions.AuthenticationError,
    aiormq.exceptions.ProbableAuthenticationError,
    aiormq.exceptions.ChannelPreconditionFailed,
    aiormq.exceptions.ChannelAccessRefused,
)
_REFUSALS: Final = ("NOT_ALLOWED", "ACCESS_REFUSED")
_STARTING: Final = " is down"
"""The end of what RabbitMQ says of a vhost that it is about to open."""


def refusal_in(error: BaseException, link: str) -> BrokerUnavailable | None:
    """The reason for a failed connection that only a change at RabbitMQ or here can end, or None.

    Credentials, a vhost, a permission, a queue's arguments, a certificate, or a file of ours.
    """
    if isinstance(error, BrokerUnavailable):
        return error
    if isinstance(error, InvalidSettings):
        # A file was good at the start and is not now: it may be on its way to be renewed.
        return BrokerUnavailable(str(error))
    words = str(error) if isinstance(error, _REFUSED) else _closing_words(error)
    if words is not None:
        reason = f"RabbitMQ refuses ({link}): {words}; check SIMILE_AMQP_URL"
        return BrokerUnavailable(reason)
    wrong = distrust(error)
    if wrong is None:
        return None
    reason = (
        f"no trust between RabbitMQ and us ({link}): {wrong}; check SIMILE_AMQP_CA_FILE, "
        "SIMILE_AMQP_CERT_FILE and the host of SIMILE_AMQP_URL"
    )
    return BrokerUnavailable(reason)


def _closing_words(error: BaseException) -> str | None:
    """The refusal by which RabbitMQ closed a connection that was being opened.

    aiormq takes it for a wrong frame, and keeps the words to itself.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        answer = frame.f_locals.get("frame")
        if isinstance(answer, spec.Connection.Close):
            words = str(answer.reply_text)
            refused = words.startswith(_REFUSALS) and not words.endswith(_STARTING)
            return words if refused else None
    return None

"""Tests RabbitMQ over TLS: a node with a certificate, which requires one of its clients."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from yarl import URL

from services.shared.errors import BrokerUnavailable, InvalidSettings
from services.shared.messaging.broker import Message, Queue
from services.shared.messaging.rabbitmq.broker import AmqpBroker
from services.shared.messaging.rabbitmq.tls import AmqpTls, certificate_error
from services.shared.process import amqp_broker
from services.shared.settings import SharedSettings, load
from tests.support.certificates import Authority, Pair
from tests.support.rabbitmq import running_node
from tests.support.running import free_port

QUEUE = Queue(name="test.tls")
HOST = "localhost"
TLS_ALERT = b"\x15"
"""The first byte of a TLS server's answer to bytes that are not TLS."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Create the CA of the node and of its clients."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def client(authority: Authority) -> Pair:
    """Create a client's certificate."""
    return authority.issue("client", "simile")


@pytest.fixture(scope="module")
def url(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a node that requires a certificate of its CA; yield its URL."""
    pair, port = authority.issue("node", HOST), free_port()
    config = (
        f"listeners.ssl.default = 127.0.0.1:{port}\n"
        f"ssl_options.cacertfile = {authority.file}\n"
        f"ssl_options.certfile = {pair.cert}\n"
        f"ssl_options.keyfile = {pair.key}\n"
        "ssl_options.verify = verify_peer\n"
        "ssl_options.fail_if_no_peer_cert = true\n"
    )
    with running_node(tmp_path_factory.mktemp("rabbitmq-tls"), config):
        yield f"amqps://guest:guest@{HOST}:{port}/"


def _broker(url: str, tls: AmqpTls) -> AmqpBroker:
    return AmqpBroker(url, name="tls", start_timeout_seconds=20, tls=tls)


async def test_messages_travel_over_tls(url: str, authority: Authority, client: Pair) -> None:
    """With the CA and a client certificate, publishing and consuming work as without TLS."""
    settings = SharedSettings(
        amqp_url=url,
        amqp_ca_file=authority.file,
        amqp_cert_file=client.cert,
        amqp_key_file=client.key,
    )
    broker = amqp_broker(settings, "tls")
    await broker.start([QUEUE])
    consumer = await broker.consume(QUEUE, prefetch=1)
    await broker.publish(QUEUE.name, Message("simile.v1.Test", b"over tls"))
    (delivery,) = await consumer.take(1)
    assert delivery.body == b"over tls"
    delivery.ack()
    await broker.close()
    with socket.create_connection((HOST, URL(url).port or 0), timeout=20) as plain:
        plain.sendall(b"AMQP\x00\x00\x09\x01")
        assert plain.recv(1) == TLS_ALERT, "the port accepts AMQP without TLS"


async def test_another_ca_is_refused(url: str, client: Pair, tmp_path: Path) -> None:
    """A node with a certificate of another CA gets no password; the error names the setting."""
    other = Authority(tmp_path)
    broker = _broker(url, AmqpTls(other.file, client.cert, client.key))
    with pytest.raises(BrokerUnavailable, match="SIMILE_AMQP_CA_FILE") as seen:
        await broker.start([QUEUE])
    assert "guest:guest" not in str(seen.value)
    await broker.close()


async def test_another_host_is_refused(url: str, authority: Authority, client: Pair) -> None:
    """The host name is checked: a certificate of another host is refused."""
    address = url.replace(HOST, "127.0.0.1")
    broker = _broker(address, AmqpTls(authority.file, client.cert, client.key))
    with pytest.raises(BrokerUnavailable, match="host of SIMILE_AMQP_URL"):
        await broker.start([QUEUE])
    await broker.close()


async def test_no_parameter_of_the_url_turns_the_check_off(
    url: str, client: Pair, tmp_path: Path
) -> None:
    """`no_verify_ssl`, which the AMQP library knows, is not accepted in the URL."""
    other = Authority(tmp_path)
    broker = _broker(f"{url}?no_verify_ssl=1", AmqpTls(other.file, client.cert, client.key))
    with pytest.raises(BrokerUnavailable, match="TLS with RabbitMQ failed"):
        await broker.start([QUEUE])
    await broker.close()


async def test_without_a_client_certificate_the_node_refuses(
    url: str, authority: Authority
) -> None:
    """The error names the TLS alert that the node sent."""
    broker = _broker(url, AmqpTls(authority.file))
    with pytest.raises(BrokerUnavailable, match="SIMILE_AMQP_CERT_FILE"):
        await broker.start([QUEUE])
    await broker.close()


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"amqp_ca_file": "absent"}, "SIMILE_AMQP_CA_FILE"),
        ({"amqp_ca_file": "junk"}, "SIMILE_AMQP_CA_FILE"),
        ({"amqp_cert_file": "junk"}, "SIMILE_AMQP_CERT_FILE"),
        ({"amqp_key_file": "junk"}, "SIMILE_AMQP_CERT_FILE"),
    ],
)
def test_files_that_can_not_be_used_end_the_start(
    tmp_path: Path, files: dict[str, str], named: str
) -> None:
    """Unusable files end the start before a connection, with the setting's name."""
    (tmp_path / "junk").write_text("no PEM")
    paths = {name: tmp_path / file for name, file in files.items()}
    settings = load(SharedSettings, amqp_url="amqps://localhost/", **paths)
    with pytest.raises(InvalidSettings, match=named):
        amqp_broker(settings, "tls")


def test_a_ca_without_amqps_is_a_wrong_setting(tmp_path: Path) -> None:
    """A CA without amqps:// is an error; otherwise all messages would travel unencrypted."""
    settings = SharedSettings(amqp_url="amqp://localhost/", amqp_ca_file=tmp_path / "ca.pem")
    with pytest.raises(InvalidSettings, match="amqps://"):
        amqp_broker(settings, "tls")


def test_an_aborted_handshake_is_retried() -> None:
    """A broker that dies during a handshake is unavailable, not distrusted, and is tried again."""
    cut = ConnectionError()
    cut.__cause__ = ssl.SSLEOFError(8, "EOF occurred in violation of protocol")
    assert certificate_error(cut) is None
    assert certificate_error(TimeoutError()) is None

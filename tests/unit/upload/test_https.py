"""HTTPS is served with a certificate, and with the new one after a renewal."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.shared.errors import InvalidSettings
from services.upload.metrics import UploadMetrics
from services.upload.security.reloading_file import ReloadingFile
from services.upload.security.security import Certificate, Security
from services.upload.settings import UploadSettings
from tests.support.certificates import Authority, Pair
from tests.unit.upload.conftest import Api


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Return a CA."""
    return Authority(tmp_path / "tls")


@pytest.fixture
def pair(authority: Authority) -> Pair:
    """Return a certificate for this machine."""
    return authority.issue("server", "127.0.0.1")


async def _serial(url: str, trust: Authority) -> int:
    """Return the serial number of the server's certificate; raise ssl.SSLError if not trusted."""
    context = ssl.create_default_context(cafile=trust.file)
    host, port = url.removeprefix("https://").split(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    shown = writer.get_extra_info("peercert")
    writer.close()
    return int(shown["serialNumber"], 16)


class TestServed:
    """Tests a service with a certificate."""

    @pytest.fixture
    def upload_settings(self, pair: Pair) -> UploadSettings:
        """Return settings with TLS."""
        return UploadSettings(port=0, tls_cert_file=pair.cert, tls_key_file=pair.key)

    async def test_the_api_is_served_over_https(
        self, api: Api, picture: bytes, authority: Authority
    ) -> None:
        """A search over TLS is answered."""
        trust = ssl.create_default_context(cafile=authority.file)
        assert api.url.startswith("https://")
        assert (await api.search(picture, ssl=trust)).status == 200

    async def test_a_renewed_certificate_is_shown_without_a_restart(
        self, api: Api, authority: Authority
    ) -> None:
        """New connections get the new certificate within seconds of the files' change."""
        before = await _serial(api.url, authority)
        authority.issue("server", "127.0.0.1")
        async with asyncio.timeout(20):
            while await _serial(api.url, authority) == before:
                await asyncio.sleep(0.05)


def test_half_a_renewal_changes_nothing(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    """A new certificate beside the old key is refused, and the old pair stays in use."""
    results: list[str] = []
    certificate = Certificate(pair.cert, pair.key)
    files = [pair.cert, pair.key]
    watched = ReloadingFile(
        "certificate", files, certificate.read, lambda _, result: results.append(result)
    )
    other = Authority(tmp_path / "other").issue("server", "127.0.0.1")
    shutil.copy(other.cert, pair.cert)
    watched.refresh()
    assert results == ["refused"]
    assert _shakes_hands(certificate.context, authority)
    shutil.copy(other.key, pair.key)
    watched.refresh()
    assert results == ["refused", "ok"]
    assert not _shakes_hands(certificate.context, authority)


def test_a_certificate_that_can_not_be_used_ends_the_start(pair: Pair) -> None:
    """The error names the files."""
    pair.key.write_text("no key")
    settings = UploadSettings(tls_cert_file=pair.cert, tls_key_file=pair.key)
    with pytest.raises(InvalidSettings, match=r"server\.key"):
        Security.of(settings, UploadMetrics(CollectorRegistry()))


def _shakes_hands(server: ssl.SSLContext, trust: Authority) -> bool:
    """Return whether a client that trusts this CA accepts the context's certificate."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context(cafile=trust.file).wrap_bio(
        to_client, to_server, server_hostname="127.0.0.1"
    )
    serving = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, serving):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return True

"""Every answer has security headers, and allowed origins may read answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.shared.errors import InvalidSettings
from services.shared.settings import load
from services.upload.security.api_keys import Scope, new_key
from services.upload.settings import UploadSettings
from tests.unit.upload.conftest import Answer, Api

SHOP = "https://shop.example"
KEY, KNOWN = new_key("shop", [Scope.READ])


def _cors(answer: Answer) -> dict[str, str]:
    return {
        name.lower(): value
        for name, value in answer.headers.items()
        if name.lower().startswith("access-control")
    }


def _preflight(origin: str) -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }


@pytest.mark.parametrize(
    "path", ["/", "/static/app.js", "/openapi.json", "/v1/collections", "/v1/nowhere", "image"]
)
async def test_every_answer_has_security_headers(api: Api, path: str) -> None:
    """Pages, API, images and errors forbid sniffing, framing, inline code and devices."""
    if path == "image":
        path = f"/v1/items/birds/{api.items[0].item_id}/image"
    headers = (await api.get(path)).headers
    policy = dict(
        part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "camera=()" in headers["Permissions-Policy"]


async def test_no_origin_is_allowed_by_default(api: Api) -> None:
    """Without the setting no other origin may send or read, and a preflight is refused."""
    assert _cors(await api.get("/v1/collections", headers={"Origin": SHOP})) == {}
    asked = await api.ask("OPTIONS", "/v1/search", headers=_preflight(SHOP))
    assert (asked.status, _cors(asked)) == (403, {})


class TestOneOrigin:
    """Tests a service with an allowed origin and keys."""

    @pytest.fixture
    def upload_settings(self, tmp_path: Path) -> UploadSettings:
        """Return settings that allow a shop's pages."""
        file = tmp_path / "keys"
        file.write_text(KNOWN.line)
        return UploadSettings(
            port=0, cors_origins=f"{SHOP}, http://localhost:3000", api_keys_file=file
        )

    async def test_its_preflight_needs_no_key(self, api: Api) -> None:
        """Browsers send the preflight without a key; credentials are never allowed."""
        asked = await api.ask("OPTIONS", "/v1/search", headers=_preflight(SHOP))
        allowed = _cors(asked)
        assert asked.status == 204
        assert allowed["access-control-allow-origin"] == SHOP
        assert "POST" in allowed["access-control-allow-methods"]
        assert "Authorization" in allowed["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in allowed
        assert asked.headers["Vary"] == "Origin"

    async def test_its_pages_may_read_answers_and_errors(self, api: Api, picture: bytes) -> None:
        """Pages of the origin can read the code and Retry-After of a problem."""
        headers = {"Origin": SHOP, "Authorization": f"Bearer {KEY}"}
        found = await api.search(picture, headers=headers)
        missing = await api.search(picture, headers={"Origin": SHOP})
        assert (found.status, missing.status) == (200, 401)
        for answer in (found, missing):
            assert _cors(answer)["access-control-allow-origin"] == SHOP
            assert "Retry-After" in _cors(answer)["access-control-expose-headers"]
            assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"

    @pytest.mark.parametrize("origin", ["https://evil.example", f"{SHOP}.evil.example", "null"])
    async def test_other_origins_are_not_allowed(self, api: Api, origin: str) -> None:
        """Neither the preflight nor an answer allows another origin."""
        asked = await api.ask("OPTIONS", "/v1/search", headers=_preflight(origin))
        read = await api.get("/v1/collections", headers={"Origin": origin})
        assert _cors(asked) == _cors(read) == {}
        assert read.headers["Vary"] == "Origin"


class TestAnyOrigin:
    """Tests a service that allows any origin."""

    @pytest.fixture
    def upload_settings(self) -> UploadSettings:
        """Return settings that allow every page."""
        return UploadSettings(port=0, cors_origins="*")

    async def test_every_page_may_read(self, api: Api) -> None:
        """Any page may read answers, without cookies, which * excludes."""
        answer = await api.get("/v1/collections", headers={"Origin": "https://any.example"})
        assert _cors(answer)["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    "setting",
    [
        {"cors_origins": "shop.example"},
        {"cors_origins": "https://shop.example/path"},
        {"cors_origins": "https://*.example"},
        {"url_allowed_hosts": "http://images.example"},
        {"url_allowed_hosts": "*"},
        {"tls_cert_file": "cert.pem"},
        {"tls_key_file": "key.pem"},
    ],
)
def test_a_setting_that_would_have_no_effect_is_refused(setting: dict[str, str]) -> None:
    """A misspelt origin or half a certificate ends the start, and names the variable."""
    (name,) = setting
    with pytest.raises(InvalidSettings, match=f"SIMILE_UPLOAD_{name}".upper()):
        load(UploadSettings, **setting)

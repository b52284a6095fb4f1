"""API keys are created, stored as hashes, required, and replaced while the service runs."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from services.cli import main as cli
from services.local import first_query
from services.shared.errors import InvalidSettings
from services.shared.lifecycle import cancel
from services.shared.settings import load
from services.upload.security.api_keys import ApiKey, Scope, find, new_key, read_keys
from services.upload.security.reloading_file import ReloadingFile, ReloadTimes
from services.upload.security.security import KeyFile
from services.upload.settings import UploadSettings
from tests.unit.upload.conftest import Api, refused

SHOP, SHOP_KEY = new_key("shop", [Scope.READ])
ROBOT, ROBOT_KEY = new_key("robot", [Scope.ADMIN])


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_new_key_is_kept_as_its_hash_alone() -> None:
    """The line holds the hash and not the key; read back, it matches that key alone."""
    assert SHOP not in SHOP_KEY.line
    assert SHOP_KEY.line.endswith(hashlib.sha256(SHOP.encode()).hexdigest())
    known = read_keys(f"\ufeff{SHOP_KEY.line}\r\n# keys\n\n{ROBOT_KEY.line}\n".encode())
    assert known == (SHOP_KEY, ROBOT_KEY)
    assert find(known, SHOP) == SHOP_KEY
    assert find(known, SHOP + "x") is None
    assert find(known, SHOP_KEY.digest.hex()) is None
    assert find(known, "é" * 1000) is None


def test_keys_differ_and_are_long() -> None:
    """Keys have 256 random bits, so that a fast hash is sufficient."""
    made = {new_key("a", [Scope.READ])[0] for _ in range(100)}
    assert len(made) == 100
    assert all(len(key) == len("simile_") + 43 for key in made)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing but a comment\n",
        SHOP,
        f"shop {SHOP}",
        f"shop owner sha256:{'0' * 64}",
        "shop read sha256:0123",
        f"shop read md5:{'0' * 32}",
        f"shop read,,admin sha256:{'0' * 64}",
        f"s/h read sha256:{'0' * 64}",
    ],
    ids=range(9),
)
def test_a_wrong_file_is_refused_without_showing_it(text: str) -> None:
    """The error has the line's number, never its text, which may be a key."""
    with pytest.raises(InvalidSettings) as seen:
        read_keys(text.encode())
    assert SHOP not in str(seen.value)


def test_the_commands_make_and_check_keys(tmp_path: Path) -> None:
    """`simile keys new` shows a key and its line; `simile keys check` lists a file of lines."""
    run = CliRunner().invoke
    made = run(cli.main, ["keys", "new", "--name", "shop", "--scope", "read", "--scope", "admin"])
    key, line = (row.split(": ", 1)[1].strip() for row in made.output.splitlines())
    file = tmp_path / "keys"
    file.write_text(line)
    assert find(read_keys(line.encode()), key) is not None
    checked = run(cli.main, ["keys", "check", str(file)])
    assert (checked.exit_code, "admin, read" in checked.output) == (0, True)
    file.write_text(key)
    wrong = run(cli.main, ["keys", "check", str(file)])
    assert wrong.exit_code == 78
    assert key not in wrong.output


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "simile.example"])  # noqa: S104
def test_an_address_that_others_reach_needs_keys_or_an_explicit_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, host: str
) -> None:
    """An address that others reach needs keys, or the setting that allows anonymous use."""
    monkeypatch.setenv("SIMILE_UPLOAD_HOST", host)
    with pytest.raises(InvalidSettings, match="SIMILE_UPLOAD_ALLOW_ANONYMOUS=true"):
        load(UploadSettings)
    assert load(UploadSettings, allow_anonymous=True).host == host
    assert load(UploadSettings, api_keys_file=tmp_path / "keys").host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_needs_no_keys(host: str) -> None:
    """On the loopback address anonymous use is the default."""
    assert load(UploadSettings, host=host).host == host


class TestWithKeys:
    """Tests a service with a key that may read, and a key that may not."""

    @pytest.fixture
    def keys_file(self, tmp_path: Path) -> Path:
        """Return the file of keys, a link as in a mounted Secret."""
        first = tmp_path / "..data_1"
        first.write_text(f"{SHOP_KEY.line}\n{ROBOT_KEY.line}\n")
        file = tmp_path / "keys"
        file.symlink_to(first)
        return file

    @pytest.fixture
    def upload_settings(self, keys_file: Path) -> UploadSettings:
        """Return settings that require keys."""
        return UploadSettings(port=0, api_keys_file=keys_file)

    async def test_every_route_of_the_api_requires_a_key(self, api: Api, picture: bytes) -> None:
        """Without a key or with a wrong one, the answer is 401 and explains how to send a key."""
        item = f"/v1/items/birds/{api.items[0].item_id}"
        for path in (
            "/v1/collections", "/v1/collections/birds", "/v1/collections/birds/facets",
            "/v1/collections/birds/sample", item, f"{item}/image", f"{item}/thumbnail",
            f"{item}/similar",
        ):  # fmt: skip
            refused(await api.get(path), 401, "unauthenticated")
            refused(await api.get(path, headers=_bearer(SHOP + "x")), 401, "unauthenticated")
            assert (await api.get(path, headers=_bearer(SHOP))).status == 200
        for path in ("/v1/search", "/v1/search/batch", "/v1/embed"):
            refused(await api.search(picture, path), 401, "unauthenticated")
        assert api.embedder.embedded == []

    async def test_the_page_and_the_description_stay_open(self, api: Api) -> None:
        """The page needs no key, since the page asks users for their key."""
        for path in ("/", "/static/app.js", "/openapi.json"):
            assert (await api.get(path)).status == 200

    async def test_up_with_keys_requires_a_key(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first query of `up` is subject to keys, and succeeds with SIMILE_API_KEY."""
        with pytest.raises(InvalidSettings, match="SIMILE_API_KEY"):
            await first_query.until_answered(api.url, "birds", pytest.fail)
        monkeypatch.setenv("SIMILE_API_KEY", SHOP)
        await first_query.until_answered(api.url, "birds", pytest.fail)

    async def test_a_missing_key_is_reported_before_anything_is_built(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """`up` requires the key before it starts; without a file of keys none is needed."""
        monkeypatch.delenv("SIMILE_API_KEY", raising=False)
        first_query.require_key(None)
        with pytest.raises(InvalidSettings, match="set SIMILE_API_KEY"):
            first_query.require_key(tmp_path / "keys")
        monkeypatch.setenv("SIMILE_API_KEY", SHOP)
        first_query.require_key(tmp_path / "keys")

    async def test_both_headers_are_accepted(self, api: Api, picture: bytes) -> None:
        """Authorization and X-API-Key are accepted; a proxy's own Basic does not hide X-API-Key."""
        for headers in (
            _bearer(SHOP),
            {"authorization": f"bearer {SHOP}"},
            {"X-API-Key": SHOP},
            {"X-API-Key": SHOP, "Authorization": "Basic dTpw"},
        ):
            assert (await api.search(picture, headers=headers)).status == 200

    async def test_a_key_without_the_scope_is_forbidden(self, api: Api) -> None:
        """Scopes don't include one another, so admin alone may not search."""
        refused(await api.get("/v1/collections", headers=_bearer(ROBOT)), 403, "forbidden")

    async def test_the_names_of_keys_are_counted(self, api: Api) -> None:
        """A metric shows whether an old key is still in use."""
        await api.get("/v1/collections", headers=_bearer(SHOP))
        value = api.telemetry.registry.get_sample_value(
            "simile_upload_key_uses_total", {"key": "shop"}
        )
        assert value == 1

    async def test_keys_are_replaced_while_the_service_runs(
        self, api: Api, keys_file: Path, tmp_path: Path
    ) -> None:
        """A swapped link activates the new keys and revokes the old, without a restart."""
        second, replacement = new_key("shop", [Scope.READ])
        data = tmp_path / "..data_2"
        data.write_text(replacement.line)
        swapped = tmp_path / "swapped"
        swapped.symlink_to(data)
        swapped.rename(keys_file)
        for _ in range(100):
            answer = await api.get("/v1/collections", headers=_bearer(second))
            if answer.status == 200:
                break
            await asyncio.sleep(0.05)
        assert answer.status == 200
        refused(await api.get("/v1/collections", headers=_bearer(SHOP)), 401, "unauthenticated")

    async def test_a_session_holds_the_key_in_a_cookie(self, api: Api) -> None:
        """The cookie opens images; scripts can't read it, and other sites can't use it."""
        url = "/v1/session"
        refused(await api.ask("POST", url, json={"key": "wrong"}), 401, "unauthenticated")
        begun = await api.ask("POST", url, json={"key": SHOP})
        assert begun.status == 204
        cookie = begun.headers["Set-Cookie"]
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
        assert "Secure" not in cookie
        headers = {"Cookie": cookie.split(";")[0]}
        thumbnail = f"/v1/items/birds/{api.items[0].item_id}/thumbnail"
        assert (await api.get(thumbnail, headers=headers)).status == 200
        ended = await api.ask("DELETE", url, headers=headers)
        assert 'simile_key=""' in ended.headers["Set-Cookie"]

    async def test_behind_tls_the_cookie_is_secure(self, api: Api) -> None:
        """X-Forwarded-Proto of a proxy that ends TLS makes the cookie Secure."""
        headers = {"X-Forwarded-Proto": "https"}
        begun = await api.ask("POST", "/v1/session", json={"key": SHOP}, headers=headers)
        assert "; Secure" in begun.headers["Set-Cookie"]

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"Sec-Fetch-Site": "same-origin"}, 200),
            ({"Sec-Fetch-Site": "none"}, 200),
            ({"Sec-Fetch-Site": "same-site"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Origin": "http://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Origin": "javascript://localhost"}, 403),
            ({"Origin": "http://[evil"}, 403),
            ({}, 200),
        ],
    )
    async def test_another_origin_can_not_use_the_cookie(
        self, api: Api, picture: bytes, headers: dict[str, str], status: int
    ) -> None:
        """Other ports and subdomains are refused, too, which SameSite would allow."""
        headers = {"Cookie": f"simile_key={SHOP}", **headers}
        answer = await api.search(picture, headers=headers)
        assert answer.status == status
        if status != 200:
            refused(answer, 403, "forbidden")

    @pytest.mark.parametrize(
        "options",
        [
            {"data": b'{"key": "a"}', "headers": {"Content-Type": "text/plain"}},
            {"data": b"no json", "headers": {"Content-Type": "application/json"}},
            {"data": b"[" * 900, "headers": {"Content-Type": "application/json"}},
            {"data": b"\xff", "headers": {"Content-Type": "application/json"}},
            {"json": {"key": 1}},
            {"json": {"key": "a", "more": 1}},
            {"json": {"key": "a" * 2000}},
        ],
    )
    async def test_a_malformed_session_is_refused(
        self, api: Api, options: dict[str, object]
    ) -> None:
        """A session needs the page's JSON, which no form of another site can send."""
        refused(await api.ask("POST", "/v1/session", **options), 400, "malformed_request")


class TestGuessing:
    """Tests a service with keys and a rate limit."""

    @pytest.fixture
    def upload_settings(self, tmp_path: Path) -> UploadSettings:
        """Return settings with three tokens that are practically not replenished."""
        file = tmp_path / "keys"
        file.write_text(SHOP_KEY.line)
        return UploadSettings(port=0, api_keys_file=file, rate_per_second=0.01, rate_burst=3)

    async def test_wrong_keys_cost_tokens_of_their_sender_alone(
        self, api: Api, picture: bytes
    ) -> None:
        """Guesses are limited by address, and the key's own tokens are not used."""
        for _ in range(3):
            refused(await api.search(picture, headers=_bearer("guess")), 401, "unauthenticated")
        refused(await api.search(picture, headers=_bearer("guess")), 429, "rate_limited")
        refused(await api.ask("POST", "/v1/session", json={"key": "guess"}), 429, "rate_limited")
        assert (await api.search(picture, headers=_bearer(SHOP))).status == 200


def _as_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    ("spoil", "left"),
    [
        (lambda file: file.write_text(""), []),
        (lambda file: file.unlink(), []),
        (lambda file: file.write_text(f"# {SHOP_KEY.line}\n# {ROBOT_KEY.line}\n"), []),
        (lambda file: file.write_text(f"shop read {SHOP}"), []),
        (lambda file: file.write_text(f"{SHOP_KEY.line}\nrobot admin sha256:12"), [SHOP_KEY]),
        (lambda file: file.write_bytes(b"\xff\xfe\n" + SHOP_KEY.line.encode()), [SHOP_KEY]),
        (lambda file: (file.unlink(), file.mkdir()), []),
        (_as_pipe, []),
        (lambda file: file.write_bytes(SHOP_KEY.line.encode() + b"\n" * 2**23), []),
    ],
    ids=["empty", "gone", "comments", "key", "half", "no-text", "folder", "pipe", "large"],
)
def test_a_key_that_is_missing_from_the_file_is_revoked(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], object],
    left: list[ApiKey],
) -> None:
    """Missing keys are revoked after any fault of the file, which is logged and counted once."""
    file, counted = tmp_path / "keys", list[tuple[str, str]]()
    file.write_text(f"{SHOP_KEY.line}\n{ROBOT_KEY.line}")
    held = KeyFile(file)
    watched = ReloadingFile("keys", [file], held.read, lambda *counts: counted.append(counts))
    watched.refresh()
    assert (counted, held.faults) == ([], 0)
    kept = file.rename(tmp_path / "kept")
    file.write_text(kept.read_text())
    watched.refresh()
    counted.clear()
    spoil(file)
    for _ in range(3):
        watched.refresh()
    assert (list(held.keys()), held.faults) == (left, 1)
    assert counted == [("keys", "refused")]
    assert SHOP not in capsys.readouterr().out
    if file.is_dir():
        file.rmdir()
    kept.replace(file)
    watched.refresh()
    assert (list(held.keys()), held.faults) == ([SHOP_KEY, ROBOT_KEY], 0)
    assert counted == [("keys", "refused"), ("keys", "ok")]


async def test_a_file_that_is_being_replaced_keeps_its_keys_until_it_is_stable(
    tmp_path: Path,
) -> None:
    """A file that is partial or missing for a moment revokes no key; later its keys are revoked."""
    file, seen = tmp_path / "keys", set[int]()
    file.write_text(SHOP_KEY.line)
    held = KeyFile(file)
    times = ReloadTimes(poll_seconds=0.01, rest_seconds=0.3, max_unrest_seconds=0.6)
    watched = ReloadingFile("keys", [file], held.read, times=times)
    watching = asyncio.create_task(watched.watch())

    async def look() -> None:
        for _ in range(4):
            await asyncio.sleep(0.01)
            seen.add(len(held.keys()))

    async with asyncio.timeout(20):
        for spoil in (file.unlink, lambda: file.write_text("shop re")):
            spoil()
            await look()
            file.write_text(f"{SHOP_KEY.line}\n{ROBOT_KEY.line}")
            while len(held.keys()) < 2:
                await look()
        assert seen <= {1, 2}
        file.unlink()
        while held.keys():
            await asyncio.sleep(0.01)
    await cancel(watching)


def test_a_missing_file_is_a_wrong_setting(tmp_path: Path) -> None:
    """A missing file ends the start, and the error names the file."""
    held = KeyFile(tmp_path / "absent")
    with pytest.raises(InvalidSettings, match="absent"):
        ReloadingFile("keys", [tmp_path / "absent"], held.read)


def test_several_keys_may_share_a_name() -> None:
    """An old and a new key of a caller are both valid during the replacement."""
    old, old_key = new_key("shop", [Scope.READ])
    known: list[ApiKey] = [old_key, SHOP_KEY]
    assert find(known, old) == old_key
    assert find(known, SHOP) == SHOP_KEY

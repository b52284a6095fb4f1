"""Tests `simile up` with a taken port, odd addresses, a second `up`, an invalid setting."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from services.local.sample import draw_sample
from services.shared.lifecycle import ExitCode
from tests.support.running import START_SECONDS, log_lines, simile_up, start, wait_until

DEFAULT_ADMIN_PORT = 9090


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a volume with the index of a few pictures."""
    folder = tmp_path_factory.mktemp("starts")
    draw_sample(folder / "pictures", per_class=1)
    with simile_up(folder / "first.log", "--root", str(folder), *_images(folder)):
        pass
    return folder


def _images(root: Path) -> list[str]:
    return ["--images", str(root / "pictures")]


def _refused(root: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Return the exit code and the output of an `up` that ends by itself."""
    log = root / "refused.log"
    log.unlink(missing_ok=True)
    up = ["-m", "services", "up", "--root", str(root), *_images(root), *arguments]
    process = start("up", up, log, environment)
    code = process.popen.wait(timeout=START_SECONDS)
    return code, log.read_text()


@pytest.mark.parametrize("option", ["--port", "--admin-port"])
def test_a_taken_port_is_one_line(root: Path, option: str) -> None:
    """The error is a line with port and option; the exit code is that of an invalid setting."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, said = _refused(root, *(["--port", "0"] if option != "--port" else []), option, port)
    assert code == ExitCode.INVALID_SETTINGS
    assert f"port {port} is taken" in said
    assert option in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("host", "shown"), [("::1", "[::1]"), ("::", "127.0.0.1")])
def test_up_becomes_ready_on_ipv6(root: Path, host: str, shown: str) -> None:
    """The URL has brackets; an address that means all interfaces serves IPv4, too."""
    arguments = ["--root", str(root), *_images(root), "--host", host]
    anonymous = {"SIMILE_UPLOAD_ALLOW_ANONYMOUS": "true"}
    with simile_up(root / f"ipv6-{shown}.log", *arguments, environment=anonymous) as (url, _):
        assert url.startswith(f"http://{shown}:")
        with urllib.request.urlopen(f"{url}/v1/collections") as answer:
            assert answer.status == 200


def test_a_second_up_takes_another_admin_port_and_top_finds_it(root: Path, tmp_path: Path) -> None:
    """With 9090 taken, `up` takes another port without an option, and `top` finds it."""
    unset = {"SIMILE_ADMIN_PORT": ""}
    try:
        taken = socket.create_server(("127.0.0.1", DEFAULT_ADMIN_PORT))
    except OSError:  # already taken
        taken = socket.socket()
    with (
        taken,
        simile_up(tmp_path / "up.log", "--root", str(root), *_images(root), environment=unset),
    ):
        seen = subprocess.run(
            [sys.executable, "-m", "services", "top", "--json", "--root", str(root)],
            check=True, capture_output=True, timeout=START_SECONDS,
        )  # fmt: skip
    replicas = json.loads(seen.stdout)["replicas"]
    assert {one["state"] for one in replicas} == {"ready"}
    assert not any(str(DEFAULT_ADMIN_PORT) in one["address"] for one in replicas)


def test_two_first_builds_at_once_are_one_line(tmp_path: Path) -> None:
    """The second `up` on a volume ends with a code, the first continues."""
    drawn = tmp_path / "many"
    draw_sample(drawn, per_class=12)
    log = tmp_path / "one.log"
    arguments = ["-m", "services", "up", "--port", "0", "--root", str(tmp_path), "--images"]
    first = start("up", [*arguments, str(drawn)], log, {})
    try:
        progress = tmp_path / "many" / "building" / "progress.json"
        wait_until(progress.exists, "building", first)
        other = start("up", [*arguments, str(drawn)], tmp_path / "two.log", {})
        assert other.popen.wait(timeout=START_SECONDS) == ExitCode.FAILED
        last = log_lines(tmp_path / "two.log")[-1]
        assert last["action"] == "build_in_progress"
        assert "Traceback" not in (tmp_path / "two.log").read_text()
        assert first.alive
    finally:
        assert first.stop() == ExitCode.DRAINED


def test_a_misspelt_variable_is_named(root: Path) -> None:
    """The error names the intended setting; a broker URL without a scheme is refused at once."""
    code, said = _refused(root, SIMILE_UPLAOD_PORT="1", SIMILE_AMQP_URL="user:hunter2@host")
    assert code == ExitCode.INVALID_SETTINGS
    assert "SIMILE_UPLAOD_PORT is not a setting" in said
    assert "did you mean SIMILE_UPLOAD_PORT?" in said
    assert "SIMILE_AMQP_URL: it must begin with amqp://" in said
    assert "hunter2" not in said


def test_a_volume_that_can_not_be_written_is_one_line(tmp_path: Path) -> None:
    """A file in place of the volume's folder is an error of one line."""
    draw_sample(tmp_path / "pictures", per_class=1)
    (tmp_path / "root").write_text("")
    log = tmp_path / "up.log"
    up = ["-m", "services", "up", "--port", "0", "--root", str(tmp_path / "root")]
    process = start("up", [*up, *_images(tmp_path)], log, {})
    assert process.popen.wait(timeout=START_SECONDS) == ExitCode.FAILED
    assert "Traceback" not in log.read_text()
    assert str(tmp_path / "root") in log.read_text()

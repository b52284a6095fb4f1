"""The load generator sends the requested load, and measures what a caller sees."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from aiohttp import web

from services.bench.load.load import Target, closed_loop, open_loop
from services.bench.load.recorder import Recorder
from services.bench.run import Sample
from tests.support.running import free_port
from tests.unit.bench.conftest import Server, overloaded, served


async def test_each_client_has_one_request_at_a_time(server: Server) -> None:
    """Three clients have at most three requests in flight, each on a connection of its own."""
    in_flight, highest = 0, 0

    async def answering(body: bytes) -> web.Response:
        nonlocal in_flight, highest
        in_flight += 1
        highest = max(highest, in_flight)
        await asyncio.sleep(0)
        in_flight -= 1
        return await served(body)

    server.answering = answering
    run = await closed_loop(server.target(), concurrency=3, seconds=0.2)
    assert highest <= 3
    assert len(server.connections) == 3
    assert run.concurrency == 3
    assert run.by_code == {"200": len(run.samples)}
    assert run.goodput == len(run.served) / 0.2 > 0


async def test_stages_are_read_from_the_answers(server: Server) -> None:
    """Server-Timing becomes seconds by stage."""
    run = await closed_loop(server.target(), concurrency=1, seconds=0.05)
    assert run.stage_medians() == {"decode": 0.0015, "model": 0.02, "total": 0.025}


async def test_a_patient_client_waits_for_retry_after(server: Server) -> None:
    """A refusal with Retry-After silences its client for the rest of a short run."""
    server.answering = overloaded
    run = await closed_loop(server.target(), concurrency=4, seconds=0.3)
    assert len(server.bodies) == 4
    assert run.by_code == {"503 overloaded": 4}
    assert len(run.refused) == 4
    assert run.refusal_percentile(99) > 0
    assert run.error_share == 1
    assert run.goodput == 0


async def test_an_impatient_client_asks_again_at_once(server: Server) -> None:
    """The server receives more than one request from each client that doesn't wait."""
    server.answering = overloaded
    await closed_loop(server.target(), concurrency=4, seconds=0.3, patient=False)
    assert len(server.bodies) > 4


async def test_a_spent_connection_is_replaced(server: Server) -> None:
    """When the server closes after each answer, each request gets a new connection."""

    async def answering(body: bytes) -> web.Response:
        answer = await served(body)
        answer.force_close()
        return answer

    server.answering = answering
    run = await closed_loop(server.target(), concurrency=1, seconds=0.1)
    assert run.by_code == {"200": len(run.samples)}
    assert len(server.connections) == len(server.bodies) > 1


async def test_what_does_not_answer_in_time_is_given_up() -> None:
    """A silent server causes a time-out for each request, and serves none."""
    never = asyncio.Event()

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await never.wait()
        writer.close()

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    target = Target(f"http://127.0.0.1:{port}", [b"an image"])
    run = await open_loop(target, rate=20, seconds=0.1, timeout_seconds=0.05)
    assert run.by_code == {"timed out": 2}
    assert run.latency_seconds.min() >= 0.05
    never.set()
    listening.close()
    await listening.wait_closed()


async def test_nobody_there_is_counted_and_not_spun_on() -> None:
    """A refused connection has a code of its own, and a client pauses before it retries."""
    target = Target(f"http://127.0.0.1:{free_port()}", [b"an image"])
    run = await closed_loop(target, concurrency=1, seconds=0.25, patient=False)
    assert run.by_code.keys() == {"no answer (ConnectionRefused)"}
    assert 1 <= len(run.samples) <= 3


async def test_a_rate_is_kept_whatever_becomes_of_the_requests(server: Server) -> None:
    """Requests start at even intervals, also while earlier ones are delayed."""
    held = asyncio.Event()

    async def answering(body: bytes) -> web.Response:
        if len(server.bodies) == 20:
            held.set()
        await held.wait()
        return await served(body)

    server.answering = answering
    run = await open_loop(server.target(), rate=100, seconds=0.2)
    assert len(server.bodies) == 20
    assert len(server.connections) == 20
    assert run.rate == 100
    distances = [later - one for one, later in itertools.pairwise(sorted(run.started_seconds))]
    assert distances == pytest.approx([0.01] * 19)


async def test_a_stall_costs_every_request_that_was_due_in_it(server: Server) -> None:
    """A request that waits for the only connection counts from the time when it was due.

    A generator that waits with sending would report one slow request and nine fast ones.
    """
    held = asyncio.Event()
    samples: list[Sample] = []

    async def answering(body: bytes) -> web.Response:
        if len(server.bodies) == 1:
            await held.wait()
        return await served(body)

    server.answering = answering
    asyncio.get_running_loop().call_later(0.3, held.set)
    run = await open_loop(
        server.target(), rate=50, seconds=0.2, max_connections=1, watch=samples.append
    )
    ends = run.started_seconds + run.latency_seconds
    assert len(run.samples) == len(samples) == 10
    assert list(run.started_seconds) == pytest.approx([number / 50 for number in range(10)])
    assert ends.min() == ends[0]
    assert (run.started_seconds < ends.min()).all()
    assert run.full_seconds > 0


async def test_what_the_server_holds_up_is_not_the_generators_lateness(server: Server) -> None:
    """Requests that wait for the only connection are late, but not because of the generator."""
    held = asyncio.Event()

    async def answering(body: bytes) -> web.Response:
        if len(server.bodies) == 1:
            await held.wait()
        return await served(body)

    server.answering = answering
    asyncio.get_running_loop().call_later(1.0, held.set)
    run = await open_loop(server.target(), rate=50, seconds=0.2, max_connections=1)
    assert run.behind_seconds < 0.8 <= run.latency_seconds.max()


async def test_a_generator_that_is_late_says_so(server: Server) -> None:
    """A loop that is blocked for a while is behind its schedule by about that time."""
    loop = asyncio.get_running_loop()

    def block() -> None:
        end = loop.time() + 0.2
        while loop.time() < end:
            pass

    loop.call_later(0.05, block)
    run = await open_loop(server.target(), rate=100, seconds=0.3)
    assert run.behind_seconds > 0.1
    assert run.p99 > 0.1


async def test_the_warm_up_does_not_count(server: Server) -> None:
    """Requests due in the warm-up are sent, and excluded from all figures."""
    run = await open_loop(server.target(), rate=100, seconds=0.1, warmup_seconds=0.1)
    assert len(server.bodies) == 20
    assert len(run.samples) == 10
    assert run.started_seconds.min() == pytest.approx(0)
    assert run.client_cpu_seconds > 0


async def test_connections_that_were_short_in_the_warm_up_do_not_count() -> None:
    """A shortage of connections in the warm-up is not reported for the run."""
    recorder = Recorder(seconds=1.0, warmup_seconds=3600.0, by_due=True, watch=None)
    recorder.full(0.5)
    assert recorder.run(rate=1.0).full_seconds == 0


async def test_no_two_runs_send_the_same_bytes(server: Server) -> None:
    """Every body differs within a run and between runs, and each begins with its image."""
    target = server.target(b"\xff\xd8 a JPEG", b"another format", unique=True)
    for _ in range(2):
        await open_loop(target, rate=100, seconds=0.1)
    assert len(server.bodies) == len(set(server.bodies)) == 20
    assert {body[:2] for body in server.bodies} == {b"\xff\xd8", b"an"}


async def test_images_are_sent_unchanged_on_request(server: Server) -> None:
    """Without `unique`, each image is sent unchanged, and equally often."""
    await open_loop(server.target(b"one", b"two"), rate=100, seconds=0.1)
    assert sorted(server.bodies) == [b"one"] * 5 + [b"two"] * 5

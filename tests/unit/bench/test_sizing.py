"""The recommendations equal figures worked out by hand."""

from __future__ import annotations

import math

import pytest

from services.bench import sizing
from services.bench.capacity import Capacity, Goal, Step
from services.bench.load.meter import Measured
from services.bench.load.scrape import Batches, Spent
from services.bench.run import Run, Sample
from services.bench.sizing import Seen, SizingGoal

BATCHES = Batches(count=100, images=700, by_limit={1: 3, 2: 2, 4: 10, 8: 82, 16: 3, math.inf: 0})


@pytest.mark.parametrize(
    ("rate", "pod_rate", "headroom", "replicas"),
    [(500, 50, 0.3, "15"), (350, 50, 0.3, "10"), (1, 50, 0.3, "1"), (100, 50, 0.0, "2")],
)
def test_embedders_carry_the_rate_with_room_to_spare(
    rate: float, pod_rate: float, headroom: float, replicas: str
) -> None:
    """500 / (50 x 0.7) = 14.3 gives 15 replicas; 350 / 35 gives exactly 10."""
    assert sizing.embedders(rate, pod_rate, headroom).value == replicas


@pytest.mark.parametrize(("cpu_seconds", "replicas"), [(0.0006, "2"), (0.003, "5"), (0.0028, "4")])
def test_a_front_is_sized_by_its_cpu(cpu_seconds: float, replicas: str) -> None:
    """1000/s x 3 ms are 3 cores; at 70 % of a core that gives 4.3, so 5; the minimum is 2."""
    advice = sizing.front("upload", 1000, cpu_seconds)
    assert advice.setting == "upload replicas"
    assert advice.value == replicas


def test_a_front_of_unknown_cost_says_how_to_know() -> None:
    """Without metrics of a process of its own, the advice is the minimum and the option's name."""
    advice = sizing.front("searcher", 1000, math.nan)
    assert advice.value == "at least 2"
    assert "--metrics" in advice.reason


@pytest.mark.parametrize(("pod_rate", "p99_seconds", "length"), [(80, 0.5, "20"), (3, 0.5, "1")])
def test_the_queue_may_hold_what_is_worked_off_in_half_the_target(
    pod_rate: float, p99_seconds: float, length: str
) -> None:
    """80/s x 0.25 s gives a length of 20; the minimum is 1."""
    assert sizing.queue_length(pod_rate, SizingGoal(p99_seconds)).value == length


def test_the_batch_limit_is_what_the_load_fills() -> None:
    """97 of 100 batches held at most 8 images, 15 at most 4, so the limit is 8."""
    advice = sizing.batch_size(BATCHES)
    assert advice.value == "8"
    assert "7.0 images on average" in advice.reason
    assert "nearly all full" not in advice.reason


def test_full_batches_ask_for_larger_ones_on_a_gpu() -> None:
    """A mean of 31.5 of at most 32 counts as full."""
    full = Batches(count=10, images=315, by_limit={16: 1, 32: 9})
    advice = sizing.batch_size(full)
    assert advice.value == "32"
    assert "on a GPU try twice as many" in advice.reason


def test_a_batch_over_every_bucket_counts_as_the_largest() -> None:
    """The last bucket has no upper end, so the limit is that of the bucket before."""
    assert sizing.batch_size(Batches(10, 2000, {128: 1, math.inf: 9})).value == "128"


@pytest.mark.parametrize(
    ("limit", "workers", "taken"), [(4, 1, "16"), (4, 4, "32"), (32, 2, "128")]
)
def test_prefetch_is_two_batches_a_worker(limit: int, workers: int, taken: str) -> None:
    """The prefetch is at least 16."""
    assert sizing.prefetch(limit, workers).value.split()[0] == taken


def test_replicas_are_named_only_for_a_rate() -> None:
    """Without a target rate, the advice holds thresholds alone."""
    seen = Seen(capacity=100, embedders=2, batches=BATCHES, workers=4)
    settings = [one.setting for one in sizing.advise(SizingGoal(0.5), seen)]
    assert settings == [
        "KEDA queue length per embedder (simile.embed)",
        "SIMILE_EMBEDDER_MAX_BATCH_SIZE",
        "embedder prefetch",
    ]


def test_everything_is_advised_from_the_run_at_capacity() -> None:
    """Two embedders served 100/s, so 50 each; the CPU is that run's, not the failed step's."""
    spent = Spent(
        cpu_seconds={"upload a": 0.6, "embedder b": 5.0, "embedder c": 5.0, "searcher d": 3.0},
        services={
            "upload a": ["upload"],
            "embedder b": ["embedder"],
            "embedder c": ["embedder"],
            "searcher d": ["searcher"],
        },
        batches=BATCHES,
        workers=4,
    )
    run = Run(10.0, [Sample(0.0, 0.1, "200")] * 1000, 0.1, rate=100.0)
    worse = Run(10.0, [Sample(0.0, 2.0, "200")] * 10, 0.1, rate=120.0)
    found = Capacity(
        Goal(0.5), 130.0, 100.0,
        [Step(100.0, Measured(run, spent), None), Step(120.0, Measured(worse), "p99")],
    )  # fmt: skip
    seen = sizing.seen_at(found, [one.measured for one in found.steps], None)
    assert seen is not None
    assert (seen.pod_rate, seen.workers) == (50.0, 4)
    assert seen.upload_cpu_seconds == pytest.approx(0.0006)
    assert seen.searcher_cpu_seconds == pytest.approx(0.003)
    advised = {one.setting: one.value for one in sizing.advise(SizingGoal(0.5, rate=1000), seen)}
    assert advised == {
        "embedder replicas": "29",  # 1000 / 35
        "upload replicas": "2",  # 0.6 cores / 0.7
        "searcher replicas": "5",  # 3 cores / 0.7
        "KEDA queue length per embedder (simile.embed)": "12",  # 50 x 0.25
        "SIMILE_EMBEDDER_MAX_BATCH_SIZE": "8",
        "embedder prefetch": "32 (nothing to set)",  # 2 x 8 x 2 workers
    }


def test_no_capacity_is_no_ground_for_advice() -> None:
    """Where no rate met the goal, nothing is recommended."""
    assert sizing.seen_at(Capacity(Goal(0.5), 10.0, 0.0, []), [], None) is None


def test_batches_are_judged_under_the_most_load() -> None:
    """The batches come from the probe with the most clients, since capacity had single images."""
    alone = Spent({}, {}, Batches(1000, 1000, {1: 1000}))
    crowd = Spent({}, {}, Batches(400, 1600, {4: 400}))
    best = Measured(Run(10.0, [Sample(0.0, 0.1, "200")] * 1000, 0.1, rate=100.0), alone)
    probe = Measured(Run(10.0, [Sample(0.0, 0.9, "200")] * 1600, 0.1, concurrency=128), crowd)
    found = Capacity(Goal(0.5), 160.0, 100.0, [Step(100.0, best, None)])
    seen = sizing.seen_at(found, [probe, best], 1)
    assert seen is not None
    assert seen.batches == crowd.batches

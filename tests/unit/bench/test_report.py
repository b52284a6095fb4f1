"""The output has tables that fit, JSON without NaN, and a self-contained page."""

from __future__ import annotations

import base64
import json
import math
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from services.bench.capacity import Capacity, Goal, Step
from services.bench.facts import Facts
from services.bench.load.meter import Measured
from services.bench.load.scrape import Batches, Spent
from services.bench.report import tables
from services.bench.report.report import write_report
from services.bench.results import Results
from services.bench.run import Run, Sample
from services.bench.sizing import Advice

FACTS = Facts(
    url="http://127.0.0.1:8080",
    collection="<birds>",
    model_id="net@1/pillow/4",
    index_version="v1",
    count=12345,
    images=256,
    image_bytes=61000,
    unique=True,
    seconds=10.0,
    warmup_seconds=2.0,
    generator="2 cores",
    simile_version="0.1.0",
    begun="2026-01-01T00:00:00+00:00",
)
SPENT = Spent(
    {"embedder one:9090": 1.5}, {"embedder one:9090": ["embedder"]}, Batches(2, 6, {2: 1, 4: 1})
)


def run_of(*codes: str, rate: float = 10.0, behind_seconds: float = 0.0) -> Run:
    """Return a run with one request of 20 ms for each code."""
    samples = [Sample(0.1 * at, 0.02, code, {"model": 0.01}) for at, code in enumerate(codes)]
    return Run(1.0, samples, 0.01, rate=rate, behind_seconds=behind_seconds)


GOOD = Measured(run_of("200", "200", "200"), SPENT)
FULL = Measured(run_of("200", "503 overloaded", "timed out", rate=50.0))
DEAD = Measured(run_of("no answer (ConnectionReset)", rate=90.0))
SEARCHED = Capacity(
    Goal(0.5),
    20.0,
    10.0,
    [Step(10.0, GOOD, None), Step(50.0, FULL, "66.7% not served"), Step(90.0, DEAD, "100.0%")],
)
EVERYTHING = Results(
    FACTS, [GOOD, FULL, DEAD], SEARCHED, [Advice("embedder replicas", "3", "since <so>.")]
)


def shown(results: Results) -> str:
    """Return the output on a terminal of 80 columns."""
    console = Console(width=80, record=True, file=None, quiet=True)
    with console.capture() as capture:
        console.quiet = False
        tables.show(results, console)
    return capture.get()


def test_the_tables_fit_a_terminal() -> None:
    """No line is wider than 80 columns, nothing is cut, and every run has its row."""
    text = shown(EVERYTHING)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for name in ("10/s", "50/s", "90/s", "503 overloaded", "66.67%", "embedder replicas: 3"):
        assert name in text


def test_a_sound_series_shows_no_columns_of_failures() -> None:
    """Where every request was served, no column for refusals or codes appears."""
    text = shown(Results(FACTS, [GOOD]))
    assert "not served" not in text
    assert "answers" not in text
    assert " 500 " in text  # ms of the embedder's CPU for an image: 1.5 s for three


def test_what_a_figure_is_worth_is_said() -> None:
    """A late generator, busy connections, and a run that served nothing are noted."""
    late = Measured(run_of("200", behind_seconds=1.0))
    full = Measured(Run(1.0, GOOD.run.samples, 0.01, rate=20.0, full_seconds=0.1))
    notes = list(tables.notes([GOOD, late, late, full, DEAD]))
    assert len(notes) == 3
    assert "generator itself was up to 1.00 s late with a request (10/s)" in notes[0]
    assert "every connection was busy at times (20/s)" in notes[1]
    assert "nothing was served (90/s)" in notes[2]


def test_the_json_is_strict_and_in_seconds() -> None:
    """JSON has no NaN; unknown figures are null."""
    text = json.dumps(EVERYTHING.to_json(), allow_nan=False)
    good, full, dead = json.loads(text)["runs"]
    assert good["latency_seconds"]["p50"] == pytest.approx(0.02)
    assert good["cpu_seconds_per_image"] == {"embedder one:9090": 0.5}
    assert good["batches"] == {"count": 2, "mean_images": 3.0, "by_limit": {"2": 1, "4": 1}}
    assert full["by_code"] == {"200": 1, "503 overloaded": 1, "timed out": 1}
    assert full["batches"] is None
    assert dead["latency_seconds"]["p99"] is None


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    """The page has no script and no external address; each picture is an SVG inside the page."""
    out = tmp_path / "report.html"
    write_report(EVERYTHING, out)
    page = out.read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 8
    for source in sources:
        kind, _, content = source.partition(",")
        assert kind == "data:image/svg+xml;base64"
        drawing = ET.fromstring(base64.b64decode(content))  # noqa: S314 (written by the test)
        assert drawing.tag.endswith("svg")
    assert "<script" not in page
    assert page.count("alt=") == len(sources)


def test_the_page_shows_what_was_measured(tmp_path: Path) -> None:
    """The page holds facts, verdict, codes and advice, and escapes all text."""
    out = tmp_path / "report.html"
    write_report(EVERYTHING, out)
    page = out.read_text()
    for text in (
        "&lt;birds&gt;", "12,345 images", "net@1/pillow/4", "61 kB", "503 overloaded",
        "Capacity: 10 images/s", "Since &lt;so&gt;.", "66.7% not served",
    ):  # fmt: skip
        assert text in page
    assert "<birds>" not in page
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page).lower()


@pytest.mark.parametrize(
    "results",
    [
        Results(FACTS, [GOOD]),
        Results(FACTS, [DEAD]),
        Results(FACTS, [Measured(Run(1.0, [], 0.0, concurrency=1))]),
        Results(FACTS, [GOOD] * 14),
        Results(FACTS, [FULL], Capacity(Goal(0.5), 0.0, 0.0)),
    ],
    ids=["one run", "nothing served", "nothing asked", "many runs", "no capacity"],
)
def test_a_page_is_made_of_whatever_there_is(results: Results, tmp_path: Path) -> None:
    """The page is written also where a part is missing."""
    write_report(results, tmp_path / "report.html")
    assert "What was measured" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.00123, "1.23"), (0.0123, "12.3"), (1.234, "1,234"), (math.nan, "")]
)
def test_milliseconds_have_three_digits(seconds: float, text: str) -> None:
    """More digits would claim a precision that no run has."""
    assert tables.milliseconds(seconds) == text

"""`simile model export`, and the former name of the command."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from services.cli.main import main
from services.embedder.models import survey as surveying
from services.embedder.models.speed import Speed
from services.embedder.models.survey import Row
from services.embedder.settings import EmbedderSettings


@pytest.fixture(autouse=True)
def _surveyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The survey of an export, without making one."""
    rows = [
        Row("onnxruntime", "fp32", Speed(images_per_second=50.0, chunk_images=4), cosine=1.0),
        Row("openvino", "bf16", unfit="too far from torch"),
    ]

    def survey(settings: EmbedderSettings) -> tuple[SimpleNamespace, list[Row]]:
        return SimpleNamespace(
            facts=SimpleNamespace(model_id="model-1"), folder=settings.models_dir
        ), rows

    monkeypatch.setattr(surveying, "survey", survey)


def _run(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "100"}).invoke(main, arguments)


def test_the_runtimes_are_a_table_or_json(tmp_path: Path) -> None:
    """Each with its speed, or the reason why it is not used."""
    result = _run("model", "export", "--models-dir", str(tmp_path))
    assert "too far from torch" in result.stdout
    assert f"exported: {tmp_path}" in result.stdout
    printed = json.loads(_run("model", "export", "--models-dir", str(tmp_path), "--json").stdout)
    assert printed["model_id"] == "model-1"
    assert [row["unfit"] for row in printed["runtimes"]] == [None, "too far from torch"]
    assert [row["images_per_second"] for row in printed["runtimes"]] == [50.0, None]


def test_the_former_name_works_and_names_the_new_one(tmp_path: Path) -> None:
    """The warning goes to standard error; help does not list the former name."""
    result = _run("export", "--models-dir", str(tmp_path))
    assert result.exit_code == 0
    assert "`simile model export`" in result.stderr
    assert f"exported: {tmp_path}" in result.stdout
    assert "warning" not in _run("model", "export", "--models-dir", str(tmp_path)).stderr
    assert " export" not in _run("--help").output

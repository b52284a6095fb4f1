"""Models that datamodel-codegen generates have the schemas' names and read the examples."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel

from services.upload import app
from tests.unit.upload.conftest import OPENAPI

EXAMPLES = [
    pytest.param(content["schema"]["$ref"].rpartition("/")[2], content["example"], id=path)
    for path, methods in OPENAPI["paths"].items()
    for operation in methods.values()
    for content in operation["responses"].get("200", {}).get("content", {}).values()
    if "example" in content
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """Generate the module and import it."""
    file = tmp_path_factory.mktemp("models") / "generated_models.py"
    made = subprocess.run(
        [Path(sys.executable).with_name("datamodel-codegen"),
         "--input", Path(app.__file__).with_name("openapi.json"), "--input-file-type", "openapi",
         "--output", file, "--output-model-type", "pydantic_v2.BaseModel", "--no-formatters"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def test_the_classes_have_the_names_of_the_schemas(models: ModuleType) -> None:
    """Every schema is a class, and no class has a made-up name such as BatchResult1."""
    text = Path(str(models.__file__)).read_text()
    made = set(re.findall(r"^class (\w+)", text, re.MULTILINE))
    assert made >= set(OPENAPI["components"]["schemas"])
    assert [name for name in made if name[-1].isdigit()] == []


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_an_example_is_read_and_written_again(
    models: ModuleType, name: str, example: dict[str, object]
) -> None:
    """No field of an answer is lost."""
    kind: type[BaseModel] = getattr(models, name)
    read = kind.model_validate(example)
    assert read.model_dump(mode="json", exclude_unset=True) == example

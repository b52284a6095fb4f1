"""A client that openapi-python-client generates sends requests and reads answers."""

from __future__ import annotations

import asyncio
import importlib
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from services.shared.contracts import Box, Filter
from services.upload import app
from services.upload.settings import UploadSettings
from tests.support.pictures import plain_jpeg
from tests.unit.upload.conftest import OPENAPI, Api

PACKAGE = "simile_generated"
UNMADE = {"Box", "BatchResult", "CollectionName", "Cursor", "FilterValues", "ImageUrl"}
"""The texts and alternatives for which the generator makes no class."""

JPEG_START = b"\xff\xd8"
PICTURES = [plain_jpeg((9, 9, 70 * number)) for number in range(3)]
API_PAGE = Path(__file__).resolve().parents[3] / "docs" / "api.md"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """Generate the package, check that it is complete, and import it."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "config.yaml").write_text(f"post_hooks: []\n{_config()}")
    description = Path(app.__file__).with_name("openapi.json")
    made = subprocess.run(
        [Path(sys.executable).with_name("openapi-python-client"), "generate", "--meta", "none",
         "--path", description, "--output-path", folder / PACKAGE,
         "--config", folder / "config.yaml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    assert "WARNING" not in made.stdout, made.stdout
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield importlib.import_module(PACKAGE)
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]


@pytest.fixture
def upload_settings() -> UploadSettings:
    """Return settings without a cache, so that each search needs an embedder."""
    return UploadSettings(port=0, embedding_cache_bytes=0)


def _config() -> str:
    """Return the configuration that docs/api.md gives."""
    (shown,) = re.findall(r"```yaml\n(.*?)```", API_PAGE.read_text(), re.DOTALL)
    return str(shown)


def _part(generated: ModuleType, name: str) -> Any:
    return importlib.import_module(f"{generated.__name__}.{name}")


async def test_an_image_is_sent_as_the_body(api: Api, generated: ModuleType) -> None:
    """The body is the image, and the query string holds a filter and other parameters."""
    types, search = _part(generated, "types"), _part(generated, "api.search.search")
    with generated.Client(base_url=api.url) as client:
        answer = await asyncio.to_thread(
            search.sync,
            client=client,
            body=types.File(payload=io.BytesIO(PICTURES[0])),
            filter_='{"label": ["crow"]}',
            box="0,0,0.5,1",
            k=3,
        )
    assert [len(answer.neighbors), answer.collection] == [3, "birds"]
    assert answer.neighbors[0].item_id == api.items[0].item_id
    assert api.searcher.asked.filter == Filter(("crow",))
    assert api.searcher.slips[-1].box == Box(0, 0, 0.5, 1)
    assert api.embedder.embedded == PICTURES[:1]


async def test_an_image_is_sent_in_a_form(api: Api, generated: ModuleType) -> None:
    """The filter is an object, which the form holds as JSON."""
    models, types = _part(generated, "models"), _part(generated, "types")
    search = _part(generated, "api.search.search")
    form = models.SearchForm(
        image=types.File(payload=io.BytesIO(PICTURES[1]), file_name="a.jpg"),
        filter_=models.Filter(label=["crow", "owl"]),
        k=2,
    )
    async with generated.Client(base_url=api.url) as client:
        answer = await search.asyncio(client=client, body=form, k=types.UNSET)
    assert len(answer.neighbors) == 2
    assert api.searcher.asked.filter == Filter(("crow", "owl"))
    assert api.embedder.embedded == [PICTURES[1]]


async def test_several_images_are_one_batch(api: Api, generated: ModuleType) -> None:
    """Each image has a result with an answer or a problem."""
    models, types = _part(generated, "models"), _part(generated, "types")
    batch = _part(generated, "api.search.search_batch")
    files = [types.File(payload=io.BytesIO(one), file_name="a") for one in (*PICTURES, b"no image")]
    async with generated.Client(base_url=api.url) as client:
        answer = await batch.asyncio(client=client, body=models.BatchForm(image=files))
    assert [hasattr(result, "answer") for result in answer.results] == [True] * 3 + [False]
    assert answer.results[3].problem.code == "unsupported_format"


def test_classes_have_the_names_of_the_schemas(generated: ModuleType) -> None:
    """No class has a made-up name such as BatchResultType0."""
    made = _part(generated, "models").__all__
    assert [name for name in made if re.search(r"Type\d", name)] == []
    assert set(OPENAPI["components"]["schemas"]) - set(made) == UNMADE


async def test_routes_of_items_and_problems_are_read(api: Api, generated: ModuleType) -> None:
    """Routes without a body work, and errors have their code."""
    routes = ("find_similar", "get_item", "get_thumbnail")
    similar, item, thumbnail = (_part(generated, f"api.items.{name}") for name in routes)
    item_id = api.items[4].item_id
    async with generated.Client(base_url=api.url) as client:
        found = await similar.asyncio("birds", item_id, client=client, filter_='{"label": "crow"}')
        facts = await item.asyncio("birds", item_id, client=client)
        small = await thumbnail.asyncio("birds", item_id, client=client)
        problem = await item.asyncio("birds", "0" * 16, client=client)
    assert len(found.neighbors) == 10
    assert facts.item_id == item_id
    assert small.payload.read(2) == JPEG_START
    assert (problem.code, problem.status) == ("unknown_item", 404)

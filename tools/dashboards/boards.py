"""Renders all dashboards to the JSON in the chart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from tools.dashboards.embedder import embedder
from tools.dashboards.index_build import index_build
from tools.dashboards.overview import overview
from tools.dashboards.searcher import searcher

FOLDER: Final = Path(__file__).resolve().parents[2] / "helm" / "simile" / "dashboards"

BOARDS: Final = {
    "overview": overview,
    "embedder": embedder,
    "searcher": searcher,
    "index-build": index_build,
}


def rendered() -> Mapping[str, str]:
    """Return file name -> JSON of every dashboard."""
    encoder = JSONEncoder(indent=2, ensure_ascii=False)
    return {
        f"{name}.json": encoder.encode(board().build()) + "\n" for name, board in BOARDS.items()
    }

"""Defines the colours of stages, services, percentiles and outcomes on all dashboards."""

from __future__ import annotations

from typing import Final

STAGES: Final = {
    "receive": "#8ab8ff",
    "sniff": "#c0d8ff",
    "lookup": "#a352cc",
    "publish": "#7c8aa5",
    "embed_queue": "#f2cc0c",
    "decode": "#3274d9",
    "batch_wait": "#fade2a",
    "model": "#ff780a",
    "search_queue": "#ffee52",
    "search": "#37872d",
    "rerank": "#73bf69",
    "messaging": "#a0a0a8",
    "reply": "#b877d9",
}
"""Stages in the order of a query; waiting is yellow."""

SERVICES: Final = {
    "upload": "#3274d9",
    "embedder": "#ff780a",
    "searcher": "#37872d",
    "up": "#8f3bb8",
}

OUTCOMES: Final = {"ok": "#73bf69", "answered": "#73bf69", "failed": "#e02f44"}

SHARES: Final = {"p50": "#73bf69", "p90": "#f2cc0c", "p99": "#e02f44"}
"""Percentiles."""

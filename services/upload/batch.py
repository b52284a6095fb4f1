"""Handles batches: each image is a query of its own, and fails alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog
from aiohttp import web

from services.shared.contracts.parameters import Route
from services.shared.errors import SimileError
from services.shared.telemetry.tracing import sampled, trace_id
from services.upload.collections import CollectionReader, OpenCollection
from services.upload.http import responses
from services.upload.http.context import (
    ALLOWANCE,
    FACTS,
    QUERY_ID,
    TIMELINE,
    TRACEPARENT,
    caller_deadline,
)
from services.upload.http.problems import problem_body
from services.upload.metrics import UploadMetrics
from services.upload.query.batch_body import BatchReader, Upload
from services.upload.query.body import read_header
from services.upload.query.filter_warnings import filter_warnings
from services.upload.query.image_input import ImageInput
from services.upload.query.parameters import parse_search
from services.upload.search.deadlines import batch_deadline
from services.upload.search.queries import Found, SearchQuery, new_query_id
from services.upload.search.reservations import Reservation
from services.upload.search.search_client import SearchClient

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Holds the result of one image: its query id, its body in the answer, and its code."""

    query_id: str
    body: dict[str, Any]
    code: str = "ok"


@dataclass(frozen=True, slots=True)
class BatchHandler:
    """POST /v1/search/batch."""

    client: SearchClient
    collections: CollectionReader
    metrics: UploadMetrics
    inputs: ImageInput
    bodies: responses.ItemBodies

    async def search(self, request: web.Request) -> web.Response:
        """Answer with each image's neighbours, or its error, in the order of the form."""
        caller, announced = request[ALLOWANCE].caller, request.content_length or 0
        announced = min(announced, self.inputs.limits.batch_bytes)
        with self.inputs.bodies.arriving(caller, announced) as body:
            await self.client.admit_batch(request[QUERY_ID], caller_deadline(request))
            # The request's head took a token for the first query.
            reader = BatchReader(
                self.inputs.limits, body, self.inputs.fetch, request[ALLOWANCE].take
            )
            uploads, fields = await reader.read(request)
            body.arrived()
            timeline = request[TIMELINE]
            timeline.lap("receive")
            self.client.left_seconds(caller_deadline(request))
            until = batch_deadline(
                len(uploads),
                caller_deadline(request),
                self.client.deadline_seconds,
                self.inputs.limits.batch_seconds,
            )
            question, box = parse_search(fields, Route.BATCH)
            opened = await self.collections.open(question.collection)
            collection = opened.manifest.collection
            question = replace(question, collection=collection)
            warnings = await filter_warnings(self.collections, opened, question.filter)
            batch = SearchQuery(
                query_id=request[QUERY_ID],
                traceparent=request[TRACEPARENT],
                timeline=timeline,
                question=question,
                box=box,
                deadline=until,
            )
            outcomes = await self._outcomes(uploads, batch, opened, warnings)
        timeline.lap("images")
        codes = Counter(outcome.code for outcome in outcomes)
        for code, count in codes.items():
            self.metrics.batch_images.labels(code=code).inc(count)
        request[FACTS].update(
            action="batch",
            collection=collection,
            codes=dict(codes),
            queries=[outcome.query_id for outcome in outcomes],
        )
        query_id: str = request[QUERY_ID]
        answer = {
            "query_id": query_id,
            "collection": collection,
            "results": [outcome.body for outcome in outcomes],
        }
        return responses.json_response(answer)

    async def _outcomes(
        self,
        uploads: Sequence[Upload],
        batch: SearchQuery,
        opened: OpenCollection,
        warnings: Sequence[str],
    ) -> list[_Outcome]:
        """Ask for each image as a query of its own, with the parameters of the batch."""
        async with asyncio.TaskGroup() as group:
            tasks = []
            for upload in uploads:
                timeline = batch.timeline.copy()
                query = replace(batch, query_id=new_query_id(), timeline=timeline)
                answering = self._outcome(upload, opened, query, batch.query_id, warnings)
                tasks.append(group.create_task(answering))
        return [task.result() for task in tasks]

    async def _outcome(
        self,
        upload: Upload,
        opened: OpenCollection,
        query: SearchQuery,
        batch: str,
        warnings: Sequence[str],
    ) -> _Outcome:
        try:
            async with self.collections.reading(opened):
                found = await self._found(upload.content, opened.manifest.model_id, query, batch)
            answer = self._answer(query, found, warnings)
        except SimileError as error:
            problem = problem_body(error, query.query_id)
            outcome = _Outcome(
                query.query_id, {"name": upload.name, "problem": problem}, error.code
            )
        else:
            outcome = _Outcome(query.query_id, {"name": upload.name, "answer": answer})
        _record(query, upload, outcome.code)
        return outcome

    async def _found(
        self, content: bytes | SimileError, model_id: str, query: SearchQuery, batch: str
    ) -> Found:
        if isinstance(content, SimileError):
            raise content
        self.metrics.image_bytes.observe(len(content))
        left = self.client.left_seconds(query.deadline)
        header = await read_header(content, self.inputs.limits.image, left)
        query.timeline.lap("sniff")

        async def shrunk(whole: bytes) -> bytes:
            sent = await self.inputs.shrinker.shrunk(whole, header, model_id, query.box)
            query.timeline.lap("sniff")
            return sent

        reservation = Reservation(batch=batch)
        return await self.client.search(query, content, reservation, shrunk)

    def _answer(self, query: SearchQuery, found: Found, warnings: Sequence[str]) -> dict[str, Any]:
        query.timeline.lap("reply")
        seconds = query.timeline.seconds()
        example = trace_id(query.traceparent) if sampled(query.traceparent) else ""
        self.metrics.observe_stages(seconds, example)
        return self.bodies.search(query, found, seconds, warnings)


def _record(query: SearchQuery, upload: Upload, code: str) -> None:
    """Log an image of a batch as a query of its own."""
    size = {} if isinstance(upload.content, SimileError) else {"bytes": len(upload.content)}
    seconds = query.timeline.seconds()
    _log.info(
        "image of a batch",
        action="query",
        correlation_id=query.query_id,
        code=code,
        collection=query.question.collection,
        batch_images=query.timeline.batch_images,
        seconds=round(seconds["total"], 6),
        timings_ms=responses.milliseconds(seconds),
        **size,
    )

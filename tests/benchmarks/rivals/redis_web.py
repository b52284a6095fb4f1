"""Runs the web side of the design of 2018: Flask writes pixels to Redis, and polls for the answer.

Images travel as base64 of raw pixels in JSON; each side polls every 250 ms.
"""

from __future__ import annotations

import base64
import json
import os
import time
import uuid

import redis  # type: ignore[import-not-found]
from flask import Flask, Response, jsonify, request  # type: ignore[import-not-found]

from tests.benchmarks.rivals.redis_model import POLL_SECONDS, QUEUE
from tests.benchmarks.rivals.similarity import documented_prepare

app = Flask(__name__)
_store = redis.Redis(port=int(os.environ["RIVAL_REDIS_PORT"]))


@app.post("/")  # type: ignore[untyped-decorator]
def search() -> Response:
    """Queue the image, and wait for its neighbours."""
    pixels = documented_prepare(request.get_data())
    number = str(uuid.uuid4())
    image = base64.b64encode(pixels.tobytes()).decode()
    _store.rpush(QUEUE, json.dumps({"id": number, "image": image}))
    while True:
        answer = _store.get(number)
        if answer is not None:
            _store.delete(number)
            return jsonify({"ids": json.loads(answer)})
        time.sleep(POLL_SECONDS)

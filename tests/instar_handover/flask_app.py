"""An ordinary Flask application, which knows nothing of the hand-over."""

import hashlib
import os
import time
from collections.abc import Iterator

import flask

WORK_SECONDS = 0.003  # so that requests are in flight when something happens
LARGE_BYTES = 1 << 20
PIECES = 10
VERSION = os.environ.get("INSTAR_VERSION", "0")

app = flask.Flask(__name__)


@app.get("/")
def index() -> str:
    time.sleep(WORK_SECONDS)
    return f"{VERSION} hello"


@app.post("/echo")
def echo() -> str:
    return f"{VERSION} {hashlib.sha256(flask.request.get_data()).hexdigest()}"


@app.post("/unread")
def unread() -> str:
    return f"{VERSION} not read"


@app.get("/large")
def large() -> str:
    return f"{VERSION} ".ljust(LARGE_BYTES, "x")


@app.get("/stream")
def stream() -> flask.Response:
    def pieces() -> Iterator[str]:
        yield f"{VERSION} "
        for _ in range(PIECES):
            time.sleep(WORK_SECONDS)
            yield "piece "

    return flask.Response(pieces())

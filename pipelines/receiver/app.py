"""The receiver as a web application: answers at once, works afterwards."""

import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response

from pipelines.receiver.delivery import DeliveryError, Event, Window, parse, verify

log = logging.getLogger(__name__)
PENDING = 1000  # deliveries that wait; MLflow is told to come back when there are more
MAX_BODY = 1 << 20  # bytes; MLflow's own take a few hundred, a long description some thousands


def receiver(secret: str, act: Callable[[Event], object], window: Window | None = None) -> FastAPI:
    """POST /mlflow takes MLflow's deliveries; `act` is called once for each that counts, one after another.

    401: not signed by our secret; 400: unreadable, too old or seen before; 413: too long; 503: too many wait. MLflow's
    own retries of a delivery carry the same id, so one that was taken is not taken twice.
    """
    if not secret:
        raise ValueError("a receiver without a secret would let anybody start work")
    seen, waiting = window or Window(), queue.Queue[Event](PENDING)
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            try:
                event = waiting.get(timeout=0.2)
            except queue.Empty:
                continue
            try:
                act(event)
            except Exception:
                log.exception("%s: the work could not be started; the next scan will find it", event.uri)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        worker = threading.Thread(target=work, name="receiver", daemon=True)
        worker.start()
        yield
        ended.set()  # what waits is left to the next scan
        worker.join(timeout=10)

    app = FastAPI(title="secateur receiver", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    @app.post("/mlflow")
    async def deliver(request: Request) -> Response:
        headers = request.headers
        body = await _body(request)
        if body is None:
            return Response(f"longer than {MAX_BODY} bytes", 413)
        delivery_id, timestamp = headers.get("x-mlflow-delivery-id", ""), headers.get("x-mlflow-timestamp", "")
        try:
            verify(secret, delivery_id, timestamp, body, headers.get("x-mlflow-signature", ""))
        except DeliveryError as exc:
            return Response(str(exc), 401)
        if waiting.full():
            return Response("too many deliveries wait", 503)
        try:
            seen.admit(delivery_id, timestamp)
            event = parse(body)
        except DeliveryError as exc:
            return Response(str(exc), 400)
        if event is None:
            return Response("of no interest", 200)
        waiting.put_nowait(event)
        return Response("taken", 202)

    @app.get("/health")
    async def health() -> str:
        return "OK"

    return app


async def _body(request: Request) -> bytes | None:
    """None where it is too long: it is read before its signature can be checked, so anybody may have sent it."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            return None
    return bytes(body)

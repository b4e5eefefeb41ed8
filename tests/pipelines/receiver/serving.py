"""A web application on a port of this machine, for the length of a `with`."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn

from pipelines.servers import free_port


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    """Its address."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)

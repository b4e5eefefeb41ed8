"""A real HTTP proxy in front of a real server, to lose what lies between a client and a server: answers, or the server."""

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

from pipelines.servers import HOST, free_port

Kind = Literal["refuse", "lose", "leave"]


@dataclass
class Fault:
    """What happens, once, to the next request whose path ends so.

    refuse: answered with 500, the server never hears of it. lose: carried out, and answered with 500. leave: from this
    request on there is nobody, until `up`.
    """

    path: str
    kind: Kind
    skip: int = 0  # so many of these requests pass before


@dataclass
class Proxy:
    target: str
    port: int
    faults: list[Fault] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)  # paths, of requests that reached the server
    server: ThreadingHTTPServer | None = None
    open: set[socket.socket] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def up(self) -> None:
        self.server = ThreadingHTTPServer((HOST, self.port), _handler(self))
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        """Nobody listens any more, and what is connected is cut off."""
        server, self.server = self.server, None
        if server is None:
            return
        server.shutdown()
        server.server_close()
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def away_for(self, seconds: float) -> None:
        self.down()
        threading.Timer(seconds, self.up).start()

    def fault_of(self, path: str) -> Fault | None:
        for fault in self.faults:
            if path.endswith(fault.path):
                if fault.skip:
                    fault.skip -= 1
                    return None
                self.faults.remove(fault)
                return fault
        return None


@contextlib.contextmanager
def proxy_to(target: str) -> Iterator[Proxy]:
    proxy = Proxy(target, free_port())
    proxy.up()
    try:
        yield proxy
    finally:
        proxy.down()


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            proxy.open.add(self.connection)

        def finish(self) -> None:
            proxy.open.discard(self.connection)
            with contextlib.suppress(OSError):
                super().finish()

        def log_message(self, *_: Any) -> None: ...

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = proxy.fault_of(path)
            if fault is not None and fault.kind == "leave":
                proxy.down()
                self.close_connection = True
                return
            if fault is None or fault.kind == "lose":
                proxy.seen.append(path)
                status, headers, content = self.forward(body)
            if fault is not None:
                status, headers, content = 500, [], b"a proxy between here and there has failed"
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PATCH = do_DELETE = do_PUT = do_GET  # noqa: N815  http.server's names

        def forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            server = http.client.HTTPConnection(urlsplit(proxy.target).netloc, timeout=60)
            try:
                server.request(self.command, self.path, body or None, dict(self.headers))
                answer = server.getresponse()
                return answer.status, answer.getheaders(), answer.read()
            finally:
                server.close()

    return Handler

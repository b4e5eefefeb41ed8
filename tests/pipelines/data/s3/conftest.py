"""A real S3 store (SeaweedFS, which checks signatures and checksums) and a proxy in front of it that does harm."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

from pipelines.data.s3 import cache, fetch

ACCESS, SECRET = "ciaccess", "ci-secret-0123456789"
HOST = "127.0.0.1"
CHUNK = 1 << 15  # what the proxy passes on at a time


@dataclass
class Proxy:
    """Passes TCP on. `on_answer(sent, chunk)` sees what goes to the client, `sent` bytes of that connection went before; it
    gives what is passed on instead, and None cuts the connection."""

    target: int
    port: int = 0
    connections: int = 0
    sent: int = 0  # bytes to clients
    on_answer: Callable[[int, bytes], bytes | None] = lambda _sent, chunk: chunk
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _listener: socket.socket = field(default_factory=socket.socket)

    def __enter__(self) -> "Proxy":
        self._listener.bind((HOST, 0))
        self._listener.listen(64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def reset(self) -> None:
        self.connections = self.sent = 0
        self.on_answer = lambda _sent, chunk: chunk

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
            server = socket.create_connection((HOST, self.target))
            threading.Thread(target=self._up, args=(client, server), daemon=True).start()
            threading.Thread(target=self._down, args=(client, server), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while chunk := client.recv(CHUNK):
                server.sendall(chunk)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _down(self, client: socket.socket, server: socket.socket) -> None:
        sent = 0
        with closing(client), closing(server), suppress(OSError):
            while chunk := server.recv(CHUNK):
                passed = self.on_answer(sent, chunk)
                if passed is None:
                    break
                client.sendall(passed)
                sent += len(passed)
                with self._lock:
                    self.sent += len(passed)
            for end in (client, server):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of the store."""
    folder = tmp_path_factory.mktemp("weed")
    weed = Path(sys.executable).with_name("weed")
    identity = {"name": "ci", "credentials": [{"accessKey": ACCESS, "secretKey": SECRET}]}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    (folder / "s3.json").write_text(json.dumps({"identities": [{**identity, "actions": actions}]}))
    port = _free_block()
    options = {
        "dir": folder,
        "ip": HOST,
        "ip.bind": HOST,
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 64,
        "volume.max": 50,
        "master.electionTimeout": "1s",
        "master.port": port + 1,
        "volume.port": port + 2,
        "filer": "true",
        "filer.port": port + 3,
        "filer.localSocket": folder / "f.sock",
        "s3": "true",
        "s3.port": port,
        "s3.config": folder / "s3.json",
        "s3.localSocket": folder / "s.sock",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.autoCreateBucket": "false",
    }
    command = [str(weed), "-logtostderr=true", "server", *(f"-{name}={value}" for name, value in options.items())]
    with (folder / "log").open("wb") as log:
        environment = {**os.environ, "GOMEMLIMIT": "256MiB"}
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_until_it_answers(port, process, folder / "log")
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # it takes 16 s to leave politely
        process.wait()


@pytest.fixture(scope="session")
def admin(store: int) -> Any:
    """A client that puts things into the store, past the proxy."""
    session = boto3.session.Session(ACCESS, SECRET, region_name="us-east-1")
    client = session.client("s3", endpoint_url=f"http://{HOST}:{store}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def _proxy(store: int) -> Iterator[Proxy]:
    with Proxy(store) as proxy:
        yield proxy


@pytest.fixture
def proxy(_proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """In front of the store, with the environment of a user, an empty cache and no time to lose."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "MLFLOW_S3_")):
            monkeypatch.delenv(name)
    values = {
        "AWS_ACCESS_KEY_ID": ACCESS,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": _proxy.url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_MAX_ATTEMPTS": "1",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(fetch, "PAUSE_S", 0.001)
    _proxy.reset()
    yield _proxy
    _proxy.reset()
    forget()


@pytest.fixture(scope="session")
def _bucket(admin: Any) -> str:
    admin.create_bucket(Bucket="data")
    return "data"


@pytest.fixture
def bucket(_bucket: str, admin: Any, proxy: Proxy) -> str:
    """An empty one."""
    for item in admin.list_objects_v2(Bucket=_bucket).get("Contents", []):
        admin.delete_object(Bucket=_bucket, Key=item["Key"])
    return _bucket


def forget() -> None:
    """As if this process had ended: nothing in the cache is in use any more."""
    for lock in cache._in_use.values():
        lock.close()
    cache._in_use.clear()


def _free_block() -> int:
    """A port P with P .. P+3 and P+10000 .. P+10003 free: the store takes them all."""
    for port in range(20000 + os.getpid() % 500 * 8, 28000, 8):
        with suppress(OSError):
            for number in (*range(port, port + 4), *range(port + 10000, port + 10004)):
                with socket.socket() as probe:
                    probe.bind((HOST, number))
            return port
    raise RuntimeError("no free ports")


def _wait_until_it_answers(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"http://{HOST}:{port}/", timeout=2).close()
        except urllib.error.HTTPError as exc:
            exc.close()
            if exc.code == 403:  # who are you? So it is up
                return
        except (OSError, urllib.error.URLError):
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the store did not start:\n{log.read_text()[-3000:]}")
        time.sleep(0.1)

"""Local servers that we start and stop: Prefect's for a flow, both for `secateur ui`. Only on this machine."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.environment import data_folder
from pipelines.errors import SecateurError

HOST = "127.0.0.1"
MLFLOW_PORT, PREFECT_PORT = 5000, 4200  # of `secateur ui`, unless somebody else has them


class ServerError(SecateurError):
    exit_status = 1


@dataclass(frozen=True, slots=True)
class Server:
    """A server that was started; `ready` waits until it answers."""

    name: str
    url: str
    health: str
    process: subprocess.Popen[bytes]
    log: Path

    def ready(self, timeout: float = 180) -> str:
        """Its URL, once it answers. Raises ServerError."""
        deadline = time.monotonic() + timeout
        while not answers(self.health):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise ServerError(
                    f"the {self.name} server did not start",
                    f"its log: {self.log}",
                    "read the end of the log; is the disk full?",
                )
            time.sleep(0.2)
        return self.url


@contextlib.contextmanager
def prefect_server(port: int | None = None) -> Iterator[Server]:
    """A Prefect server on our own SQLite file, until the end of the `with`."""
    port = port or free_port()
    folder = data_folder() / "prefect"
    environment = {
        "PREFECT_HOME": str(folder),
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_UI_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    url = f"http://{HOST}:{port}"
    with _running("Prefect", command, environment, folder / "server.log", url, f"{url}/api/health") as server:
        yield server


@contextlib.contextmanager
def mlflow_server(tracking_uri: str, port: int) -> Iterator[Server]:
    """An MLflow server with its UI, in two processes instead of fifteen."""
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    options = ["--backend-store-uri", tracking_uri, "--host", HOST, "--port", str(port), "--workers", "1"]
    artifacts = ["--default-artifact-root", (data_folder() / "artifacts").as_uri()]
    command = [sys.executable, "-m", "mlflow", "server", *options, *artifacts]
    url = f"http://{HOST}:{port}"
    log = data_folder() / "mlflow-server.log"
    with _running("MLflow", command, environment, log, url, f"{url}/health") as server:
        yield server


@contextlib.contextmanager
def prefect_worker(api_url: str, pool: str) -> Iterator[Server]:
    """A worker that runs what is scheduled for that pool, each run in a process of its own."""
    folder = data_folder() / "prefect"
    environment = {"PREFECT_HOME": str(folder), "PREFECT_API_URL": api_url}
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
    health = f"{api_url}/health"
    with _running("Prefect worker", command, environment, folder / "worker.log", api_url, health) as worker:
        yield worker


def check_alone() -> None:
    """Two sets of servers and workers on one data folder would do the same work twice. Raises ServerError."""
    url = announced_prefect()
    if url is not None:
        raise ServerError(
            "servers run on this data folder already",
            f"{data_folder()}, Prefect UI {url}",
            "use those (`secateur deploy` changes their schedules), or stop them with Ctrl-C first",
        )


@contextlib.contextmanager
def announced(server: Server) -> Iterator[None]:
    """Let flows that start meanwhile report to this Prefect server, so that its UI shows them live."""
    note = _note()
    note.write_text(json.dumps({"url": server.url}), encoding="utf-8")
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def announced_prefect() -> str | None:
    """The address of a Prefect server that `secateur ui` runs on our data folder."""
    try:
        url = str(json.loads(_note().read_text(encoding="utf-8"))["url"])
    except (OSError, ValueError, KeyError):
        return None
    return url if answers(f"{url}/api/health") else None


def free_port(wanted: int = 0) -> int:
    """`wanted` if nobody has it, else any."""
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return int(probe.getsockname()[1])
    raise ServerError("there is no free port", HOST, "stop a server that you no longer need")


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310  our own address
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError, ValueError):
        return False


@contextlib.contextmanager
def _running(
    name: str, command: list[str], environment: Mapping[str, str], log: Path, url: str, health: str
) -> Iterator[Server]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        # a session of its own: Ctrl-C reaches us first, and we stop it when all is written
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Server(name, url, health, process, log)
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for order in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, order)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            continue
        return


def _note() -> Path:
    return data_folder() / "prefect" / "server.json"

"""A passed gate reaches people through an automation of a real Prefect server."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from pipelines import environment
from pipelines.flows.events import GATE_FAILED, GATE_PASSED, tell_judged
from pipelines.servers import prefect_server
from tests.pipelines.steps.test_compare import comparison, model

PATIENCE = 60  # seconds


@pytest.fixture
def chat() -> Iterator[tuple[str, list[str]]]:
    """An address of this machine that takes messages, and what it was told."""
    told: list[str] = []

    class Chat(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Chat)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", told
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_automation_tells_of_passed_and_failed_gates(
    chat: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.automations import Automation
    from prefect.blocks.webhook import Webhook
    from prefect.events.actions import CallWebhook
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.events.worker import EventsWorker
    from prefect.settings import PREFECT_API_URL, temporary_settings

    address, told = chat
    monkeypatch.setenv(environment.HOME_VARIABLE, str(tmp_path))
    good, bad = comparison((model("small", 0.98, 0.96), 4.0)), comparison((model("small", 0.5, 0.5), 4.0))
    with prefect_server() as server, temporary_settings({PREFECT_API_URL: f"{server.ready()}/api"}):
        block = Webhook(url=address, allow_private_urls=True).save("team-chat")
        for name, event in (("passed", GATE_PASSED), ("failed", GATE_FAILED)):
            trigger = EventTrigger(
                expect={event}, match={"prefect.resource.id": "secateur.model.*"}, posture=Posture.Reactive, threshold=1
            )
            payload = json.dumps({name: "{{ event.resource.name }}", "title": "{{ event.payload.title }}"})
            Automation(name=name, trigger=trigger, actions=[CallWebhook(block_document_id=block, payload=payload)]).create()
        deadline = time.monotonic() + PATIENCE
        while len(told) < 2 and time.monotonic() < deadline:  # an automation does not see what came before it was loaded
            tell_judged(good, "digits")
            tell_judged(bad, "letters")
            EventsWorker.drain_all(timeout=10)
            time.sleep(1)
    answers = [json.loads(text) for text in told]
    assert {"passed": "digits", "title": "small"} in answers
    assert any(answer.get("failed") == "letters" for answer in answers)

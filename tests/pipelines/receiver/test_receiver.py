"""Deliveries as MLflow signs them, by its own code. One by a real server: tests/pipelines/flows/test_webhook.py."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from mlflow.webhooks.delivery import _generate_hmac_signature

from pipelines.receiver import Event, Window, receiver
from pipelines.receiver.app import MAX_BODY
from tests.pipelines.receiver.serving import served

SECRET = "a secret"  # noqa: S105
DATA = {"name": "größe", "alias": "champion", "version": "7"}
ALIAS = {"entity": "model_version_alias", "action": "created", "data": DATA}


class Seen:
    """What the receiver acted on."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.arrived = threading.Semaphore(0)

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        self.arrived.release()
        if event.version == "13":
            raise ZeroDivisionError("unlucky")


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def client(seen: Seen) -> Iterator[httpx.Client]:
    with served(receiver(SECRET, seen, Window(300))) as url, httpx.Client(base_url=url, trust_env=False) as client:
        yield client


def post(client: httpx.Client, payload: Any, delivery: str = "d1", secret: str = SECRET, age: float = 0) -> tuple[int, str]:
    body = payload if isinstance(payload, str) else json.dumps(payload)
    sent = str(int(time.time() - age))
    headers = {
        "X-MLflow-Delivery-Id": delivery,
        "X-MLflow-Timestamp": sent,
        "X-MLflow-Signature": _generate_hmac_signature(secret, delivery, sent, body),
    }
    answer = client.post("/mlflow", content=body.encode(), headers=headers)
    return answer.status_code, answer.text


def test_a_delivery_is_taken_once(client: httpx.Client, seen: Seen) -> None:
    assert post(client, ALIAS) == (202, "taken")
    assert seen.arrived.acquire(timeout=10)
    assert seen.events == [Event("model_version_alias", "created", "größe", "7")]
    assert seen.events[0].uri == "models:/größe/7"
    assert post(client, ALIAS) == (400, "it was delivered before")
    assert post(client, ALIAS, "d2")[0] == 202


def test_forged_old_and_broken_ones_are_refused(client: httpx.Client, seen: Seen) -> None:
    assert post(client, ALIAS, secret="another")[0] == 401  # noqa: S106
    assert client.post("/mlflow", json=ALIAS).status_code == 401
    for number, age in enumerate((301, -301)):
        status, text = post(client, ALIAS, f"old {number}", age=age)
        assert (status, "300 seconds ago" in text) == (400, True)
    for number, payload in enumerate(("no json", "[]", {"entity": "model_version", "action": "created", "data": {}})):
        status, text = post(client, payload, f"broken {number}")
        assert (status, "cannot be read" in text) == (400, True)
    assert seen.events == []


def test_what_is_too_long_is_not_kept_in_memory(client: httpx.Client, seen: Seen) -> None:
    """Nobody has signed it, and it does not say how long it is."""

    def endless() -> Iterator[bytes]:
        for _ in range(40):
            yield bytes(MAX_BODY // 10)

    answer = client.post("/mlflow", content=endless())
    assert (answer.status_code, "longer than" in answer.text) == (413, True)
    assert post(client, ALIAS) == (202, "taken")


def test_a_full_receiver_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.receiver import app

    monkeypatch.setattr(app, "PENDING", 1)
    busy, done = threading.Event(), threading.Event()

    def act(_: Event) -> None:
        busy.set()
        done.wait(30)

    with served(receiver(SECRET, act, Window(300))) as url, httpx.Client(base_url=url, trust_env=False) as client:
        assert post(client, ALIAS, "1")[0] == 202
        assert busy.wait(10)
        assert [post(client, ALIAS, str(number))[0] for number in (2, 3)] == [202, 503]
        threading.Timer(1, done.set).start()
    assert not [thread for thread in threading.enumerate() if thread.name == "receiver"]


@pytest.mark.parametrize(
    "payload",
    [
        {**ALIAS, "data": {**DATA, "name": "example_model"}},
        {"entity": "model_version_alias", "action": "deleted", "data": {"name": "m", "alias": "a"}},
        {"entity": "prompt", "action": "created", "data": {"name": "p"}},
    ],
    ids=["sample", "deleted", "prompt"],
)
def test_samples_and_what_is_of_no_interest_start_nothing(client: httpx.Client, seen: Seen, payload: Any) -> None:
    assert post(client, payload) == (200, "of no interest")
    assert seen.events == []


def test_work_that_fails_does_not_stop_the_next(client: httpx.Client, seen: Seen) -> None:
    unlucky = {**ALIAS, "data": {**DATA, "version": "13"}}
    assert post(client, unlucky, "a")[0] == post(client, ALIAS, "b")[0] == 202
    assert seen.arrived.acquire(timeout=10)
    assert seen.arrived.acquire(timeout=10)
    assert [event.version for event in seen.events] == ["13", "7"]


def test_a_window_forgets_only_what_is_too_old_to_come_again() -> None:
    now = [1000.0]
    window = Window(10, clock=lambda: now[0])
    window.admit("early", "1010")  # its clock is ahead: valid until 1020
    now[0] = 1019
    with pytest.raises(Exception, match="delivered before"):
        window.admit("early", "1010")
    now[0] = 1021
    with pytest.raises(Exception, match="seconds ago"):
        window.admit("early", "1010")


def test_no_receiver_without_a_secret() -> None:
    with pytest.raises(ValueError, match="anybody"):
        receiver("", print)

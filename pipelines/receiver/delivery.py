"""A delivery of MLflow: is it MLflow's, is it new, and what does it say? Nothing here knows a web server."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

SAMPLE = "example_model"  # what MLflow's `test_webhook` sends, to the same address as the real ones
ACTIONS = {("model_version", "created"), ("model_version_alias", "created"), ("model_version_tag", "set")}


class DeliveryError(Exception):
    """A delivery that is not answered: forged, too old, or seen before."""


@dataclass(frozen=True, slots=True)
class Event:
    """A version of a registered model that something happened to."""

    entity: str
    action: str
    name: str
    version: str

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"


class Window:
    """Delivery ids of the last `seconds`: each is let in once, and none that is older."""

    def __init__(self, seconds: float = 300, clock: Callable[[], float] = time.time) -> None:
        self._seconds, self._clock = seconds, clock
        self._seen: dict[str, float] = {}
        self._lock = threading.Lock()

    def admit(self, delivery_id: str, timestamp: str) -> None:
        """Raises DeliveryError."""
        now = self._clock()
        try:
            sent = float(timestamp)
        except ValueError as exc:
            raise DeliveryError("its timestamp is no number") from exc
        if not abs(now - sent) <= self._seconds:
            raise DeliveryError(f"it was sent more than {self._seconds:g} seconds ago, or the clocks differ")
        with self._lock:
            # a delivery is valid until sent + seconds, which may lie one window after its arrival
            self._seen = {key: at for key, at in self._seen.items() if now - at <= 2 * self._seconds}
            if delivery_id in self._seen:
                raise DeliveryError("it was delivered before")
            self._seen[delivery_id] = now


def verify(secret: str, delivery_id: str, timestamp: str, body: bytes, signature: str) -> None:
    """Raises DeliveryError unless MLflow signed this with our secret: v1,<base64 of HMAC-SHA256 of "id.time.body">."""
    content = f"{delivery_id}.{timestamp}.".encode() + body
    expected = base64.b64encode(hmac.new(secret.encode(), content, hashlib.sha256).digest())
    if not hmac.compare_digest(b"v1," + expected, signature.encode()):
        raise DeliveryError("its signature is not ours")


def parse(body: bytes) -> Event | None:
    """The version that it is about; None for what is of no interest, and for MLflow's samples. Raises DeliveryError."""
    try:
        raw = json.loads(body)
        entity, action, data = raw["entity"], raw["action"], raw["data"]
        if (entity, action) not in ACTIONS or data["name"] == SAMPLE:
            return None
        return Event(str(entity), str(action), str(data["name"]), str(int(data["version"])))
    except (ValueError, KeyError, TypeError) as exc:
        raise DeliveryError(f"it cannot be read: {exc!r}") from exc

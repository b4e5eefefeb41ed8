"""MLflow's registry webhooks as a trigger: what was marked is compressed at once, without waiting for the next scan."""

from pipelines.receiver.app import receiver
from pipelines.receiver.delivery import Event, Window, parse, verify

__all__ = ["Event", "Window", "parse", "receiver", "verify"]

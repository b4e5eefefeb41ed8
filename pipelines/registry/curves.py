"""The curve of a training in its run, epoch by epoch."""

import contextlib
import time
from collections.abc import Mapping, Sequence

from mlflow.entities import Metric, Param

from pipelines import lineage
from pipelines.errors import RegistryError
from pipelines.registry.store import Store, mlflow_errors, now_ms
from pipelines.steps.finetune import Epoch

BATCH_LIMIT = 900  # metrics per request: MLflow refuses more than 1,000


class CurveLog:
    """The curve of a training, epoch by epoch as it comes, so that it can be watched.

    Quick epochs are sent together: what MLflow costs stays below `COST_SHARE` of the time.
    """

    COST_SHARE = 0.01

    def __init__(self, store: Store, run_id: str, primary: str) -> None:
        self.store, self.run_id, self.primary = store, run_id, primary
        self.waiting: list[Metric] = []
        self.told: set[int] = set()  # numbers of epochs
        self.sent_at, self.cost = time.monotonic(), 0.0

    def add(self, epoch: Epoch) -> None:
        """A store that does not answer is no reason to stop the training: it is tried again at the next epoch."""
        self._keep(epoch)
        if time.monotonic() - self.sent_at >= self.cost / self.COST_SHARE:
            with contextlib.suppress(RegistryError):
                self._send()

    def finish(self, curve: Sequence[Epoch], params: Mapping[str, object]) -> None:
        """What is not there yet, such as the epochs of a process that was killed, and the options. Raises RegistryError."""
        with mlflow_errors("the training cannot be recorded", self.run_id):
            there = {metric.step for metric in self.store.client.get_metric_history(self.run_id, lineage.TRAIN_LOSS)}
        for epoch in curve:
            if epoch.number not in self.told | there:
                self._keep(epoch)
        self._send([Param(key, str(value)) for key, value in params.items()])

    def _keep(self, epoch: Epoch) -> None:
        self.told.add(epoch.number)
        values = {
            lineage.TRAIN_LOSS: epoch.train_loss,
            f"{lineage.EPOCH_VAL}{self.primary}": epoch.val_metric,
            lineage.LEARNING_RATE: epoch.learning_rate,
            lineage.OPTIMIZER_STEPS: float(epoch.steps),
            lineage.EPOCH_SECONDS: epoch.seconds,
        }
        self.waiting += [Metric(key, value, now_ms(), epoch.number) for key, value in values.items()]

    def _send(self, params: Sequence[Param] = ()) -> None:
        began = time.monotonic()
        try:
            with mlflow_errors("the training cannot be recorded", self.run_id):
                for start in range(0, max(1, len(self.waiting)), BATCH_LIMIT):
                    self.store.client.log_batch(self.run_id, self.waiting[start : start + BATCH_LIMIT], params)
            self.waiting.clear()
        finally:
            self.sent_at = time.monotonic()
            self.cost = self.sent_at - began

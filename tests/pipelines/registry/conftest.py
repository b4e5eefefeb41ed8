"""No test of a single request waits as long as a flow does for a store that is away."""

import pytest

from pipelines.registry import patience


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "RETRY_DELAYS", [0.05] * len(patience.RETRY_DELAYS))
